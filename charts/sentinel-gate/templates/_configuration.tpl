{{- /* The gate's configuration file. */ -}}
{{- define "sentinel-gate.configuration" -}}
{{- $raw := list -}}
{{- range .Values.sentinel.raw -}}
{{- $raw = append $raw (printf "/host%s" .) -}}
{{- end -}}
{{- $sentinel := dict "raw" $raw "gated" (include "sentinel-gate.gated" .) "mode" .Values.sentinel.mode -}}
apiVersion: sentinel-gate.io/v1alpha1
kind: GateConfiguration
sentinel:
  {{- toYaml $sentinel | nindent 2 }}
{{ toYaml .Values.config }}
{{- end -}}
