{{- /* One name for all objects: the release's, and "lodestar" where it is not in it. */}}
{{- define "lodestar.name" -}}
{{- if contains "lodestar" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-lodestar" (.Release.Name | trunc 31 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "lodestar.selector" -}}
app.kubernetes.io/name: lodestar
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lodestar.labels" -}}
{{ include "lodestar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* The settings, with a place for what was learned where there is one. */}}
{{- define "lodestar.settings" -}}
{{- $settings := deepCopy .Values.settings }}
{{- if not (hasKey $settings "checkpoint_path") }}{{ $_ := set $settings "checkpoint_path" "/var/lib/lodestar/learned.checkpoint" }}{{ end }}
{{- with .Values.share.url }}{{ $_ := set $settings "share" . }}{{ end }}
{{- toYaml $settings }}
{{- end }}

{{- /* envoy/kubernetes/gateway.yaml, with this release's names, port and settings. */}}
{{- define "lodestar.gateway" -}}
{{- $name := include "lodestar.name" . }}
{{- $block := printf "        lodestar:\n%s\n    load_assignment:\n      cluster_name: engines" (include "lodestar.settings" . | indent 10) }}
{{- $text := .Files.Get "files/gateway.yaml" }}
{{- $text = regexReplaceAllLiteral "(?s)        lodestar:\n.*?    load_assignment:\n      cluster_name: engines" $text $block }}
{{- $text = replace "{address: engines, port_value: 8000}" (printf "{address: %s-engines, port_value: %d}" $name (int .Values.engines.port)) $text }}
{{- replace "{address: lodestar, port_value: 9002}" (printf "{address: %s, port_value: 9002}" $name) $text }}
{{- end }}

{{- /* Secrets that are mounted, by the name of their volume. */}}
{{- define "lodestar.secrets" -}}
{{- $named := dict "admin-tls" .Values.admin.tlsSecret "admin-client-ca" .Values.admin.clientCaSecret "admin-token" .Values.admin.tokenSecret }}
{{- if eq .Values.mode "inference-pool" }}
{{- $named = merge $named (dict "tls" .Values.tls.secret "tls-client-ca" .Values.tls.clientCaSecret) }}
{{- end }}
{{- range $name, $secret := $named }}
{{- if $secret }}
{{ $name }}: {{ $secret }}
{{- end }}
{{- end }}
{{- end }}

{{- define "lodestar.gatewaySelector" -}}
app.kubernetes.io/name: lodestar-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lodestar.gatewayLabels" -}}
{{ include "lodestar.gatewaySelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
