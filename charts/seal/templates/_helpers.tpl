{{/* The chart's name, and the name that objects begin with. */}}
{{- define "seal.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "seal.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "seal.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "seal.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/*
What chooses the pods of a component: (dict "root" $ "component" NAME). In quotes: to YAML a name like
`no` or `2024` would be none.
*/}}
{{- define "seal.selector" -}}
app.kubernetes.io/name: {{ include "seal.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object, with those that the values give all of them; the chart's own win. */}}
{{- define "seal.labels" -}}
{{ merge (include "seal.ownLabels" . | fromYaml) .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Labels of a component's pods: (dict "root" $ "component" NAME "values" VALUES). */}}
{{- define "seal.podLabels" -}}
{{ merge (include "seal.ownLabels" . | fromYaml) (.values.podLabels | default dict) .root.Values.commonLabels | toYaml }}
{{- end }}

{{- define "seal.ownLabels" -}}
{{ include "seal.selector" . }}
app.kubernetes.io/part-of: seal
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "seal.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Namespaces that are served, as a JSON list. */}}
{{- define "seal.namespaces" -}}
{{- .Values.controller.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

{{/* Address of one of the three services, as gRPC knows it: (dict "root" $ "component" NAME). */}}
{{- define "seal.address" -}}
{{- $port := get (include "seal.ports" . | fromJson) .component -}}
dns:///{{ include "seal.fullname" .root }}-{{ .component }}.{{ .root.Release.Namespace }}.svc:{{ $port }}
{{- end }}

{{- define "seal.ports" -}}
{"generator": 50051, "trainer": 50052, "evaluator": 50053}
{{- end }}

{{- define "seal.metricsPorts" -}}
{"generator": 9101, "trainer": 9102, "evaluator": 9103, "controller": 9100, "api": 9100}
{{- end }}

{{/* Names of the gRPC services, without their package. */}}
{{- define "seal.health" -}}
{"generator": "GeneratorService", "trainer": "TrainerService", "evaluator": "EvaluatorService"}
{{- end }}

{{/* Security that the standard `restricted` asks for: of a pod, and of a container. */}}
{{- define "seal.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- range $field, $value := include "seal.users" . | fromJson }}
{{ $field }}: {{ toJson $value }}
{{- end }}
{{- end }}

{{/* Whom a pod's processes run as, as JSON, without what the cluster is to choose. */}}
{{- define "seal.users" -}}
{{- $users := dict }}
{{- range $field, $value := .Values.podSecurityContext }}
{{- if kindIs "float64" $value }}{{ $value = int64 $value }}{{ end }}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $users $field $value }}{{ end }}
{{- end }}
{{- toJson $users }}
{{- end }}

{{/* Temporary files of a pod, as a volume. */}}
{{- define "seal.tmp" -}}
{{- $limit := dict }}
{{- with .Values.temporaryFiles.sizeLimit }}{{ $_ := set $limit "sizeLimit" . }}{{ end }}
{{- dict "name" "tmp" "emptyDir" $limit | toJson }}
{{- end }}

{{- define "seal.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods find the artifact store. */}}
{{- define "seal.artifacts.uri" -}}
{{- .Values.artifacts.uri | default (printf "file://%s" .Values.artifacts.volume.mountPath) }}
{{- end }}

{{- define "seal.artifacts.claim" -}}
{{- if not .Values.artifacts.uri }}
{{- .Values.artifacts.volume.existingClaim | default (printf "%s-artifacts" (include "seal.fullname" .)) }}
{{- end }}
{{- end }}

{{- define "seal.models.claim" -}}
{{- if eq .Values.models.source "volume" }}
{{- .Values.models.volume.existingClaim | default (printf "%s-models" (include "seal.fullname" .)) }}
{{- end }}
{{- end }}

{{/* Where containers find models. */}}
{{- define "seal.models.path" -}}
{{- ternary .Values.models.volume.mountPath .Values.models.imagePath (eq .Values.models.source "volume") }}
{{- end }}

{{/*
Options of an engine as variables, a JSON object of text: (list GENERAL OWN), the own win. YAML's
numbers are floats to templates, and a large one would be written as a power of ten.
*/}}
{{- define "seal.engine.variables" -}}
{{- $variables := dict }}
{{- range $options := . }}
{{- range $name, $value := $options }}
{{- if kindIs "float64" $value }}
{{- if eq (floor $value) $value }}{{ $value = int64 $value }}{{ end }}
{{- end }}
{{- $_ := set $variables (printf "SEAL_%s" ($name | snakecase | upper)) ($value | toString) }}
{{- end }}
{{- end }}
{{- toJson $variables }}
{{- end }}

{{/* Environment that every process has: the store, how it logs, and what the values give all. */}}
{{- define "seal.environment" -}}
- {name: SEAL_ARTIFACTS, value: {{ include "seal.artifacts.uri" . | quote }}}
- {name: SEAL_LOG_FORMAT, value: json}
- {name: SEAL_LOG_LEVEL, value: {{ .Values.logLevel | quote }}}
{{- range $variable, $value := include "seal.variables" . | fromJson }}
- {name: {{ $variable | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* Variables of every process and of Jobs, a JSON object of text: the values' own, and where spans go. */}}
{{- define "seal.variables" -}}
{{- $variables := deepCopy .Values.environment }}
{{- with .Values.tracing.endpoint }}
{{- $_ := set $variables "OTEL_EXPORTER_OTLP_ENDPOINT" . }}
{{- end }}
{{- toJson $variables }}
{{- end }}

{{/*
Seconds from a pod's SIGTERM to its kill: both settings of a server, whose defaults these are
(seal/options.py), and what it takes beside: (dict "root" $ "values" VALUES "beside" SECONDS).
*/}}
{{- define "seal.termination" -}}
{{- $settings := dict "SEAL_UNREADY_SECONDS" "5" "SEAL_GRACE_SECONDS" "30" }}
{{- range $name, $value := .root.Values.environment }}
{{- if and $value (hasKey $settings $name) }}{{ $_ := set $settings $name $value }}{{ end }}
{{- end }}
{{- range $one := .values.env }}
{{- if hasKey $settings $one.name }}
{{- if $one.valueFrom }}
{{- fail (printf "%s: give it a value: terminationGracePeriodSeconds follows from it" $one.name) }}
{{- end }}
{{- with $one.value }}{{ $_ := set $settings $one.name . }}{{ end }}
{{- end }}
{{- end }}
{{- $seconds := int64 .beside }}
{{- range $settings }}{{ $seconds = add $seconds (float64 . | ceil | int64) }}{{ end }}
{{- $seconds }}
{{- end }}

{{- define "seal.environmentFrom" -}}
{{- with .Values.artifacts.existingSecret }}
envFrom:
  - secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end }}

{{/*
How a Deployment replaces its pods, as JSON, of a component's values. All of it is said: what the API
server fills in belongs to nobody, stays, and is refused beside `Recreate`.
*/}}
{{- define "seal.strategy" -}}
{{- $strategy := .strategy | default dict }}
{{- if eq ($strategy.type | default "RollingUpdate") "Recreate" }}
{{- dict "type" "Recreate" | toJson }}
{{- else }}
{{- $shares := dict "maxSurge" "25%" "maxUnavailable" "25%" }}
{{- range $field, $amount := $strategy.rollingUpdate }}
{{- $_ := set $shares $field $amount }}
{{- end }}
{{- dict "type" "RollingUpdate" "rollingUpdate" $shares | toJson }}
{{- end }}
{{- end }}

{{/* What a component may be told about its pods: (dict "root" $ "values" VALUES). */}}
{{- define "seal.placement" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $.values $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $selector := .labelSelector | default (dict "matchLabels" (include "seal.selector" $ | fromYaml)) }}
  - {{ merge (dict "labelSelector" $selector) . | toJson }}
  {{- end }}
{{- end }}
{{- range $field := list "priorityClassName" "runtimeClassName" }}
{{- with get $.values $field }}
{{ $field }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
