{{/*
A container's variables, a list in YAML, each name once: of several the last holds, as in a container.
Server-side apply, by which helm 4 and others write, refuses an object that has a name twice.
*/}}
{{- define "seal.environment.once" -}}
{{- $given := fromYamlArray . }}
{{- $last := dict }}
{{- range $place, $one := $given }}{{ $_ := set $last $one.name $place }}{{ end }}
{{- $kept := list }}
{{- range $place, $one := $given }}
{{- if eq $place (get $last $one.name) }}{{ $kept = append $kept $one }}{{ end }}
{{- end }}
{{- toYaml $kept }}
{{- end }}

{{/* Of one of the three services: (dict "root" $ "component" NAME). */}}
{{- define "seal.environment.service" -}}
{{- $values := get .root.Values .component }}
{{- $engine := include "seal.engine.variables" (list .root.Values.engine ($values.engine | default dict)) | fromJson }}
{{- $limits := dig "limits" dict ($values.resources | default dict) }}
{{- include "seal.environment" .root }}
- {name: SEAL_ADDRESS, value: "0.0.0.0:{{ get (include "seal.ports" . | fromJson) .component }}"}
- {name: SEAL_MODEL, value: {{ .root.Values.model | quote }}}
- {name: SEAL_OFFLINE, value: "true"}
- {name: SEAL_MODEL_CACHE, value: {{ include "seal.models.path" .root | quote }}}
{{- if include "seal.models.claim" .root }}
# The volume may be filled only now
- {name: SEAL_MODEL_WAIT_SECONDS, value: {{ .root.Values.models.startupSeconds | quote }}}
{{- end }}
{{- $threads := or (hasKey $engine "SEAL_THREADS") (hasKey .root.Values.environment "SEAL_THREADS") }}
{{- if and (hasKey $limits "cpu") (not $threads) }}
# PyTorch would take as many threads as the node has cores
- {name: SEAL_THREADS, valueFrom: {resourceFieldRef: {containerName: {{ .component }}, resource: limits.cpu}}}
{{- end }}
{{- range $variable, $value := $engine }}
- {name: {{ $variable }}, value: {{ $value | quote }}}
{{- end }}
{{- with $values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "seal.environment.controller" -}}
{{- $name := printf "%s-controller" (include "seal.fullname" .) }}
{{- include "seal.environment" . }}
- {name: SEAL_NAMESPACES, value: {{ include "seal.namespaces" . | fromJsonArray | join "," | quote }}}
- {name: SEAL_JOBS_FILE, value: /etc/seal/jobs.yaml}
- {name: SEAL_LEASE_NAME, value: {{ $name | quote }}}
- {name: SEAL_LEASE_NAMESPACE, value: {{ .Release.Namespace | quote }}}
- {name: SEAL_WORKERS, value: {{ .Values.controller.workers | quote }}}
- {name: SEAL_METRICS_PORT, value: "9100"}
- {name: SEAL_HEALTH_PORT, value: "8081"}
{{- with .Values.controller.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "seal.environment.api" -}}
{{- include "seal.environment" . }}
- {name: SEAL_WORLD, value: cluster}
- {name: SEAL_PROFILE, value: {{ .Values.api.profile }}}
- {name: SEAL_ADDRESS, value: "0.0.0.0:50050"}
- {name: SEAL_MODEL, value: {{ .Values.model | quote }}}
- {name: SEAL_NAMESPACES, value: {{ include "seal.namespaces" . | fromJsonArray | join "," | quote }}}
{{- if .Values.api.adaptations }}
- {name: SEAL_ADAPTATIONS_FILE, value: /etc/seal/adaptations.yaml}
{{- end }}
{{- with .Values.api.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of the pod that fills the volume of models. */}}
{{- define "seal.environment.models" -}}
# What the image has is copied: no network is needed for it
- {name: SEAL_CACHE, value: {{ dir .Values.models.imagePath | quote }}}
{{- range $variable, $value := .Values.environment }}
- {name: {{ $variable | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
