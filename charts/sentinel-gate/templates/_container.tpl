{{- /* The gate's container, which is the same in both modes but for where it can write. */ -}}
{{- define "sentinel-gate.container" -}}
name: sentinel-gate
image: {{ include "sentinel-gate.image" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if eq .Values.mode "sidecar" }}
# A sidecar: kured's container starts when it has started, and stops before it.
restartPolicy: Always
{{- end }}
args:
  - --listen-address=:{{ .Values.port }}
  - --log-level={{ .Values.logLevel }}
  - --log-format={{ .Values.logFormat }}
  {{- with .Values.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  - name: NODE_NAME
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  # Of the limit below the gate's heap takes four fifths at most.
  - name: MEMORY_LIMIT
    valueFrom:
      resourceFieldRef:
        resource: limits.memory
{{- $port := eq .Values.mode "sidecar" | ternary "gate-metrics" "metrics" }}
ports:
  - name: {{ $port }}
    containerPort: {{ .Values.port }}
# Fails when the loop hangs, not when the cluster is unwell; a restart closes first.
livenessProbe:
  httpGet:
    path: /healthz
    port: {{ $port }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
# The raw sentinel was looked at, and the node's record is written.
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ $port }}
  periodSeconds: 10
  timeoutSeconds: 5
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  {{- if eq .Values.mode "sidecar" }}
  # The pod is kured's, and its user root: a user of its own keeps the gate from
  # the sockets in /var/run, which a read-only mount does not.
  runAsNonRoot: true
  runAsUser: 9817
  runAsGroup: 9817
  seccompProfile:
    type: RuntimeDefault
  {{- with .Values.seLinuxOptions }}
  seLinuxOptions:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: {{ eq .Values.mode "sidecar" | ternary "gate-config" "config" }}
    mountPath: /etc/sentinel-gate
    readOnly: true
  {{- range $i, $directory := include "sentinel-gate.rawDirectories" . | fromJsonArray }}
  # The directory, not the file: a mount of the file does not see it come and go.
  # Not at its own path: the kubelet mounts the token below /var/run, for which it
  # could make no directory in a read-only mount.
  - name: {{ include "sentinel-gate.rawVolume" (dict "index" $i "root" $) }}
    mountPath: /host{{ $directory }}
    readOnly: true
    recursiveReadOnly: IfPossible
  {{- end }}
  {{- if include "sentinel-gate.exposure" . }}
  # Which versions are installed; everybody on the node may read it.
  - name: {{ eq .Values.mode "sidecar" | ternary "gate-dpkg" "dpkg" }}
    mountPath: /host/var/lib/dpkg
    readOnly: true
  {{- end }}
  # The only place where the gate can write.
  - name: gated
    mountPath: {{ dir (include "sentinel-gate.gated" .) }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "sentinel-gate.rawVolume" -}}
{{- $name := eq .root.Values.mode "sidecar" | ternary "gate-run" "run" -}}
{{ eq .index 0 | ternary $name (printf "%s-%d" $name .index) }}
{{- end -}}

{{- define "sentinel-gate.volumes" -}}
- name: {{ eq .Values.mode "sidecar" | ternary "gate-config" "config" }}
  configMap:
    name: {{ include "sentinel-gate.fullname" . }}
{{- range $i, $directory := include "sentinel-gate.rawDirectories" . | fromJsonArray }}
- name: {{ include "sentinel-gate.rawVolume" (dict "index" $i "root" $) }}
  hostPath:
    path: {{ $directory }}
    type: Directory
{{- end }}
{{- if include "sentinel-gate.exposure" . }}
- name: {{ eq .Values.mode "sidecar" | ternary "gate-dpkg" "dpkg" }}
  hostPath:
    path: /var/lib/dpkg
    # Where there is no dpkg it stays empty, and the lists of deploy/node serve.
    type: DirectoryOrCreate
{{- end }}
- name: gated
  {{- if eq .Values.mode "sidecar" }}
  # Gate and kured share it. In memory: it ends with the pod and with the boot.
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
  {{- else }}
  hostPath:
    path: {{ dir .Values.sentinel.gated }}
    # Made anew after each boot: /run is a tmpfs.
    type: DirectoryOrCreate
  {{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
