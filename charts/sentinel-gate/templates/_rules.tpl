{{- /* Whether the gates take part in the turn: not empty. */ -}}
{{- define "sentinel-gate.turn" -}}
{{- $turn := .Values.config.turn | default dict -}}
{{- if not (hasKey $turn "enabled") -}}true{{- else if $turn.enabled -}}true{{- end -}}
{{- end -}}

{{- /* What the configured steps need to read, and no more: as sentinel-gate --print-rbac says. */ -}}
{{- define "sentinel-gate.rules" -}}
{{- $types := .Files.Get "files/permissions.yaml" | fromYaml -}}
{{- $verbs := dict -}}
{{- range $step := .Values.config.checks -}}
{{- $options := $step.options | default dict -}}
{{- $rules := get $types $step.type | default list -}}
{{- if eq $step.type "resource" -}}
{{- $group := contains "/" $options.apiVersion | ternary (splitList "/" $options.apiVersion | first) "" -}}
{{- $rules = list (dict "apiGroups" (list $group) "resources" (list $options.resource) "verbs" (list "list" "watch")) -}}
{{- end -}}
{{- if $step.nodeSelector -}}
{{- $rules = append $rules (dict "apiGroups" (list "") "resources" (list "nodes") "verbs" (list "list")) -}}
{{- end -}}
{{- range $rule := $rules -}}
{{- $resource := first $rule.resources -}}
{{- $unread := and (eq $step.type "controlPlaneQuorum") (eq $resource "pods") (hasKey $options "pods") (not $options.pods) -}}
{{- if not $unread -}}
{{- $key := printf "%s/%s" (first $rule.apiGroups) $resource -}}
{{- $_ := set $verbs $key (concat (get $verbs $key | default list) $rule.verbs | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "sentinel-gate.turn" . -}}
{{- range $key := list "/nodes" "apps/daemonsets" -}}
{{- $_ := set $verbs $key (concat (get $verbs $key | default list) (list "list") | uniq | sortAlpha) -}}
{{- end -}}
{{- end -}}
{{- if not $verbs }} []{{ end -}}
{{- range $key := keys $verbs | sortAlpha }}
- apiGroups: [{{ splitList "/" $key | first | quote }}]
  resources: [{{ splitList "/" $key | last }}]
  verbs: [{{ get $verbs $key | join ", " }}]
{{- end -}}
{{- end -}}
