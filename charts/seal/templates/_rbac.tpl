{{/* Rights of the controller in a namespace that it serves. */}}
{{- define "seal.rules.controller" -}}
# Its own objects: only the status is its to write; one whose time is over it deletes
- {apiGroups: [seal.dev], resources: [restemruns, adaptations], verbs: [get, list, watch, delete]}
- {apiGroups: [seal.dev], resources: [restemruns/status, adaptations/status], verbs: [update]}
# Where OwnerReferencesPermissionEnforcement is on, an owner that blocks deletion needs this
- {apiGroups: [seal.dev], resources: [restemruns/finalizers, adaptations/finalizers], verbs: [update]}
- {apiGroups: [batch], resources: [jobs], verbs: [get, list, watch, create, delete]}
# Why a Job does not get on
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [kueue.x-k8s.io], resources: [workloads], verbs: [list]}
# The same, and the story that `kubectl describe` tells
- {apiGroups: [""], resources: [events], verbs: [list, create]}
{{- if .Values.rbac.kserve }}
- {apiGroups: [serving.kserve.io], resources: [inferenceservices, llminferenceservices], verbs: [get, create, update]}
{{- end }}
{{- end }}

{{/* Rights of the front door in a namespace that it serves. */}}
{{- define "seal.rules.api" -}}
- {apiGroups: [seal.dev], resources: [adaptations], verbs: [get, list, watch, create, update, delete]}
{{- end }}

{{/* A part of the cluster's own roles: (dict "root" $ "name" NAME "of" ROLES "verbs" VERBS). */}}
{{- define "seal.clusterrole" }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ include "seal.fullname" .root }}-{{ .name }}
  labels:
    {{- include "seal.labels" (dict "root" .root "component" "users") | nindent 4 }}
    {{- range .of }}
    rbac.authorization.k8s.io/aggregate-to-{{ . }}: "true"
    {{- end }}
rules:
  - {apiGroups: [seal.dev], resources: [restemruns, adaptations], verbs: {{ toJson .verbs }}}
{{- end }}

{{- define "seal.rolebinding" }}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "seal.fullname" .root }}-{{ .role }}
  namespace: {{ .namespace | quote }}
  labels:
    {{- include "seal.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "seal.fullname" .root }}-{{ .role }}
subjects:
  - kind: ServiceAccount
    name: {{ include "seal.fullname" .root }}-{{ .component }}
    namespace: {{ .root.Release.Namespace | quote }}
{{- end }}
