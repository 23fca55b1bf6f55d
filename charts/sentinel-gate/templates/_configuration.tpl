{{- /* The gate's configuration file. */ -}}
{{- define "sentinel-gate.configuration" -}}
{{- $raw := list -}}
{{- range .Values.sentinel.raw -}}
{{- $raw = append $raw (printf "/host%s" .) -}}
{{- end -}}
{{- $sentinel := dict "raw" $raw "gated" (include "sentinel-gate.gated" .) "mode" .Values.sentinel.mode -}}
{{- if include "sentinel-gate.exposure" . -}}
{{- $_ := set $sentinel "dpkgStatus" "/host/var/lib/dpkg/status" -}}
{{- end -}}
apiVersion: sentinel-gate.io/v1alpha1
kind: GateConfiguration
sentinel:
  {{- toYaml $sentinel | nindent 2 }}
{{ toYaml .Values.config }}
{{- end -}}

{{- /* Whether a readySoak step lets more than one node soak at a time: not empty. */ -}}
{{- define "sentinel-gate.exposure" -}}
{{- range $step := .Values.config.checks -}}
{{- if and (eq $step.type "readySoak") (hasKey ($step.options | default dict) "exposure") -}}true{{- end -}}
{{- end -}}
{{- end -}}
