{{/* What the controller is set to about Jobs: JobSettings, in YAML. */}}
{{- define "seal.jobs" -}}
{{- $models := include "seal.models.claim" . -}}
{{- $variables := merge (include "seal.variables" . | fromJson) (dict "SEAL_LOG_LEVEL" .Values.logLevel) -}}
{{- $trainer := include "seal.engine.variables" (list .Values.engine .Values.jobs.trainer.engine) | fromJson -}}
{{- if not $models }}
{{- $_ := set $trainer "SEAL_MODEL_CACHE" (include "seal.models.path" .) }}
{{- end -}}
worker:
  {{- include "seal.jobs.pods" (dict "root" . "values" .Values.jobs.worker "variables" $variables) | nindent 2 }}
trainer:
  {{- include "seal.jobs.pods" (dict "root" . "values" .Values.jobs.trainer "variables" (merge $trainer $variables)) | nindent 2 }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
services:
  {{- range $component := list "generator" "trainer" "evaluator" }}
  {{ $component }}: {{ include "seal.address" (dict "root" $ "component" $component) | quote }}
  {{- end }}
store:
  uri: {{ include "seal.artifacts.uri" . | quote }}
  {{- with include "seal.artifacts.claim" . }}
  claimName: {{ . | quote }}
  mountPath: {{ $.Values.artifacts.volume.mountPath | quote }}
  {{- end }}
  credentialsSecret: {{ .Values.artifacts.existingSecret | quote }}
{{- with $models }}
models:
  claimName: {{ . | quote }}
  mountPath: {{ $.Values.models.volume.mountPath | quote }}
{{- end }}
{{- with .Values.temporaryFiles.sizeLimit }}
temporarySizeLimit: {{ . | quote }}
{{- end }}
queueName: {{ .Values.jobs.queueName | quote }}
podSecurityContext: {{ include "seal.users" . }}
serviceAccount: {{ .Values.serviceAccount.jobsName | quote }}
imagePullSecrets: {{ toJson .Values.image.pullSecrets }}
parallelism: {{ int64 .Values.jobs.parallelism }}
deadlineSeconds: {{ int64 .Values.jobs.deadlineSeconds }}
ttlSeconds: {{ int64 .Values.jobs.ttlSeconds }}
graceSeconds: {{ int64 .Values.jobs.graceSeconds }}
{{- end }}

{{/* What the pods of one kind of stage are made from, by its values: PodSettings. */}}
{{- define "seal.jobs.pods" -}}
{{- $labels := merge (dict) (.values.podLabels | default dict) .root.Values.commonLabels -}}
{{- $own := dict "labels" $labels "annotations" (.values.podAnnotations | default dict) -}}
image: {{ include "seal.image" .root | quote }}
environment: {{ toJson .variables }}
resources: {{ toJson .values.resources }}
placement: {{ pick .values "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" | toJson }}
additions: {{ merge $own (pick .values "volumes" "volumeMounts") | toJson }}
{{- end }}
