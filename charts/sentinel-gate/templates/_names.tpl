{{- define "sentinel-gate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "sentinel-gate.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sentinel-gate.labels" -}}
{{ include "sentinel-gate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sentinel-gate.serviceAccount" -}}
{{- if eq .Values.mode "sidecar" -}}
{{ .Values.kured.serviceAccountName }}
{{- else -}}
{{ include "sentinel-gate.fullname" . }}
{{- end -}}
{{- end -}}

{{- /* An image, of (dict "image" ... "tag" the default tag). */ -}}
{{- define "sentinel-gate.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end -}}

{{- /* The directories of the raw sentinels on the host, each once, as JSON. */ -}}
{{- define "sentinel-gate.rawDirectories" -}}
{{- $directories := list -}}
{{- range .Values.sentinel.raw -}}
{{- $directories = append $directories (dir .) -}}
{{- end -}}
{{ $directories | uniq | toJson }}
{{- end -}}

{{- /* Where the gate writes, as it and kured see it. */ -}}
{{- define "sentinel-gate.gated" -}}
{{- if eq .Values.mode "sidecar" -}}
/sentinel-gate/{{ base .Values.sentinel.gated }}
{{- else -}}
{{ .Values.sentinel.gated }}
{{- end -}}
{{- end -}}
