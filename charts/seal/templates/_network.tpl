{{/* Parts of network policies. A policy is checked behind a Service: ports are those of the pods. */}}

{{/* Pods of a component of this release, as a peer: (dict "root" $ "component" NAME). */}}
{{- define "seal.network.pods" -}}
- podSelector:
    matchLabels:
      {{- include "seal.selector" . | nindent 6 }}
{{- end }}

{{/* What chooses the pods of Jobs, which the controller makes (controller_svc/k8s/jobs.py). */}}
{{- define "seal.network.jobs" -}}
app.kubernetes.io/part-of: seal
app.kubernetes.io/managed-by: seal-controller
{{- end }}

{{/* The release's namespace, and those that are served. */}}
{{- define "seal.network.served" -}}
namespaceSelector:
  matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: In, values: {{ include "seal.namespaces" . }}}
{{- end }}

{{/* Whoever may scrape metrics of a port: (dict "root" $ "port" NUMBER). An empty `from` would be everybody. */}}
{{- define "seal.network.scraped" -}}
{{- with .root.Values.networkPolicy.scrapers -}}
- ports: [{protocol: TCP, port: {{ $.port }}}]
  from: {{ toJson . }}
{{- end }}
{{- end }}

{{/* Names are looked up. OpenShift's DNS listens on 5353. */}}
{{- define "seal.network.dns" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
    - {protocol: UDP, port: 5353}
    - {protocol: TCP, port: 5353}
{{- end }}

{{/* TCP ports of whatever address: a list of numbers. An edge without ports would be one to all of them. */}}
{{- define "seal.network.ports" -}}
{{- with . }}
- ports:
    {{- range . }}
    - {protocol: TCP, port: {{ int64 . }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* The three services of this release, by the ports of their calls. */}}
{{- define "seal.network.services" -}}
{{- range $component, $port := include "seal.ports" . | fromJson }}
- ports: [{protocol: TCP, port: {{ $port }}}]
  to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ $.Release.Namespace | quote }}}
      podSelector:
        matchLabels:
          {{- include "seal.selector" (dict "root" $ "component" $component) | nindent 10 }}
{{- end }}
{{- end }}

{{/* What every process calls beside the release: bucket, traces, and what the values add. */}}
{{- define "seal.network.common" -}}
{{- if .Values.artifacts.uri }}
{{ include "seal.network.ports" .Values.networkPolicy.objectStorePorts }}
{{- end }}
{{- with .Values.tracing.endpoint }}
{{ include "seal.network.ports" (list (regexFind ":[0-9]+/?$" . | trimPrefix ":" | trimSuffix "/" | default "443")) }}
{{- end }}
{{- with .Values.networkPolicy.egress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Head of a policy of one component: (dict "root" $ "component" NAME). */}}
{{- define "seal.network.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "seal.fullname" .root }}-{{ .component }}
  labels:
    {{- include "seal.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "seal.selector" . | nindent 6 }}
{{- end }}
