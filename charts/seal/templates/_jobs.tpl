{{/* What the controller is set to about Jobs: JobSettings, in YAML. */}}
{{- define "seal.jobs" -}}
{{- $models := include "seal.models.claim" . -}}
{{- $variables := merge (include "seal.variables" . | fromJson) (dict "SEAL_LOG_LEVEL" .Values.logLevel) -}}
{{- $trainer := include "seal.engine.variables" (list .Values.engine .Values.jobs.trainer.engine) | fromJson -}}
{{- if not $models }}
{{- $_ := set $trainer "SEAL_MODEL_CACHE" (include "seal.models.path" .) }}
{{- end -}}
workerImage: {{ include "seal.image" . | quote }}
trainerImage: {{ include "seal.image" . | quote }}
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
workerEnvironment: {{ toJson $variables }}
trainerEnvironment: {{ merge $trainer $variables | toJson }}
workerResources: {{ toJson .Values.jobs.worker.resources }}
trainerResources: {{ toJson .Values.jobs.trainer.resources }}
workerPlacement: {{ include "seal.jobs.placement" .Values.jobs.worker }}
trainerPlacement: {{ include "seal.jobs.placement" .Values.jobs.trainer }}
workerAdditions: {{ include "seal.jobs.additions" (dict "root" . "values" .Values.jobs.worker) }}
trainerAdditions: {{ include "seal.jobs.additions" (dict "root" . "values" .Values.jobs.trainer) }}
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

{{/* Where pods of Jobs run, by the values of their kind: a JSON object. */}}
{{- define "seal.jobs.placement" -}}
{{- pick . "nodeSelector" "tolerations" "priorityClassName" "runtimeClassName" | toJson }}
{{- end }}

{{/* What they have beside the controller's own, likewise. */}}
{{- define "seal.jobs.additions" -}}
{{- $labels := merge (dict) (.values.podLabels | default dict) .root.Values.commonLabels }}
{{- merge (dict "labels" $labels "annotations" (.values.podAnnotations | default dict)) (pick .values "volumes" "volumeMounts") | toJson }}
{{- end }}
