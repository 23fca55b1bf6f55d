{{- /* The values for kured's own chart. deploy/kured/values.yaml says why. */ -}}
{{- define "sentinel-gate.kuredValues" -}}
configuration:
  rebootSentinel: {{ include "sentinel-gate.gated" . }}
  {{- if eq .Values.mode "sidecar" }}
  # The file is in a volume that gate and kured share, not on the host.
  useRebootSentinelHostPath: false
  {{- else }}
  useRebootSentinelHostPath: true
  {{- end }}
  rebootSentinelCommand: ""
  period: 1m
  concurrency: 1
  drainTimeout: 30m
  forceReboot: false
  lockTtl: 0
  lockReleaseDelay: {{ if include "sentinel-gate.exposure" . }}0{{ else }}5m{{ end }}
{{- if eq .Values.mode "sidecar" }}
volumeMounts:
  - name: gated
    mountPath: {{ dir (include "sentinel-gate.gated" .) }}
    readOnly: true
volumes:
  {{- include "sentinel-gate.volumes" . | nindent 2 }}
initContainers:
  - {{ include "sentinel-gate.container" . | indent 4 | trim }}
# A change of the gate's configuration rolls kured's pods.
podAnnotations:
  sentinel-gate.io/config-checksum: {{ include "sentinel-gate.configuration" . | sha256sum }}
{{- end }}
{{- end -}}
