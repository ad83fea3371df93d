#!/usr/bin/env bash
# Builds the real programs that the tests, the demo and the benchmarks run beside Spillway.
#
# usage: build.sh [kubernetes|etcd|kwok|karpenter|prometheus|service-controller|nomad-client|moto|prism]...      (none: all of them)
#
# Each program family is a Go module of its own, because their dependency versions conflict. The binaries go
# to $SPILLWAY_COMPONENTS (default: ~/.cache/spillway/components), outside the target directory, because they
# take minutes to build and seldom change: a program is built again only when its go.mod, its go.sum, its own code or the flags
# below change. Programs found in $KUBEBUILDER_ASSETS are not built at all.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${SPILLWAY_COMPONENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/spillway/components}
kubernetes_version=v1.36.2

# Clients parse the server's version, and a module build would call itself v0.0.0-master.
kubernetes_stamp="-X k8s.io/component-base/version.gitVersion=$kubernetes_version"
kubernetes_stamp+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
kubernetes_stamp+=" -X k8s.io/client-go/pkg/version.gitVersion=$kubernetes_version"

# family, program, package, extra linker flags
programs() {
  cat <<LIST
kubernetes|kube-apiserver|k8s.io/kubernetes/cmd/kube-apiserver|$kubernetes_stamp
kubernetes|kube-scheduler|k8s.io/kubernetes/cmd/kube-scheduler|$kubernetes_stamp
kubernetes|kube-controller-manager|k8s.io/kubernetes/cmd/kube-controller-manager|$kubernetes_stamp
kubernetes|kubectl|k8s.io/kubernetes/cmd/kubectl|$kubernetes_stamp
etcd|etcd|go.etcd.io/etcd/server/v3|
kwok|kwok|sigs.k8s.io/kwok/cmd/kwok|
karpenter|karpenter|sigs.k8s.io/karpenter/kwok|
prometheus|prometheus|github.com/prometheus/prometheus/cmd/prometheus|
prometheus|promtool|github.com/prometheus/prometheus/cmd/promtool|
service-controller|service-controller|spillway.dev/tests/components/service-controller|
nomad-client|nomad-client|spillway.dev/tests/components/nomad-client|
LIST
}

# family, file in the cache, module, files of the module: what a program needs beside itself, taken as its authors published it
files() {
  cat <<LIST
karpenter|karpenter-crds.yaml|sigs.k8s.io/karpenter|pkg/apis/crds/*.yaml kwok/apis/crds/*.yaml
LIST
}

say() { printf 'components: %s\n' "$*"; }

require_go() {
  command -v go >/dev/null || { say "Go 1.26 or newer is needed to build the test components (no 'go' in PATH)" >&2; exit 1; }
  local minor
  minor=$(go env GOVERSION | sed -E 's/^go1\.([0-9]+).*/\1/')
  # Go 1.27 makes encoding/json v2 the default, and Kubernetes 1.36 then publishes a broken OpenAPI document.
  if [[ $minor =~ ^[0-9]+$ ]] && ((minor >= 27)); then
    export GOEXPERIMENT=nojsonv2
  fi
}

fingerprint() { # family how
  # Most families are other people's programs only.
  { cat "$here/$1/go.mod" "$here/$1/go.sum"; cat "$here/$1"/*.go 2>/dev/null || true; echo "$2"; } | sha256sum | cut -d' ' -f1
}

gather() { # family file module patterns
  local family=$1 file=$2 module=$3 patterns=$4 folder wanted stamp=$cache/.stamps/$2 partial=$cache/.$2.$$
  wanted=$(fingerprint "$family" "$module $patterns")
  if [[ -f $cache/$file && $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
    return
  fi
  # The module may have been cleaned away since the program was built.
  folder=$(cd "$here/$family" && export GOWORK=off && go mod download "$module" && go list -m -f '{{.Dir}}' "$module")
  # Unquoted: the patterns are several, and match files.
  # shellcheck disable=SC2086
  (cd "$folder" && cat $patterns) >"$partial"
  mv "$partial" "$cache/$file"
  echo "$wanted" >"$stamp"
  say "$file: taken from the module $module"
}

build() { # family program package linker-flags
  local family=$1 program=$2 package=$3 flags="-s -w${4:+ $4}"
  if [[ -n ${KUBEBUILDER_ASSETS:-} && -x $KUBEBUILDER_ASSETS/$program ]]; then
    say "$program: taken from KUBEBUILDER_ASSETS"
    return
  fi
  local wanted stamp=$cache/.stamps/$program started=$SECONDS partial=$cache/.$program.$$
  wanted=$(fingerprint "$family" "$package $flags")
  if [[ -x $cache/$program && $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
    say "$program: up to date"
    return
  fi
  say "$program: building (the first program of a family takes minutes)"
  # -v names every package as it is compiled: one line for each hundred shows that it is alive.
  (cd "$here/$family" && GOWORK=off CGO_ENABLED=0 go build -v -p "${SPILLWAY_GO_JOBS:-2}" -trimpath -buildvcs=false \
      -ldflags "$flags" -o "$partial" "$package" 2>&1) |
    awk -v program="$program" '/^[a-z0-9.-]+(\/[^ :]+)*$/ { if (++n % 100 == 0) { print "components: " program ": " n " packages compiled"; fflush() } next } !/^go: downloading/ { print; fflush() }'
  mv "$partial" "$cache/$program"
  echo "$wanted" >"$stamp"
  say "$program: built in $((SECONDS - started)) s, $(($(wc -c <"$cache/$program") / 1000000)) MB"
}

# A Python program: its packages, all of them pinned, in an environment of their own.
install_moto() {
  local version stamp folder
  version=$(sed -n 's/^moto==//p' "$here/moto/requirements.txt")
  folder=$cache/moto-$version
  stamp=$(sha256sum <"$here/moto/requirements.txt" | cut -d' ' -f1)
  if [[ $(cat "$folder/.stamp" 2>/dev/null) == "$stamp" ]]; then
    say "moto: up to date"
    return
  fi
  command -v python3 >/dev/null || { say "Python 3.10 or newer is needed for moto (no 'python3' in PATH)" >&2; exit 1; }
  say "moto: installing"
  # Scripts of an environment name its folder, so it is made in its place and stamped at last.
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/moto/requirements.txt"
  echo "$stamp" >"$folder/.stamp"
  say "moto: installed, $(du -sm "$folder" | cut -f1) MB"
}

# A Node program with everything in its lock file, in a folder with its version in the name. No script of any package runs.
install_node() { # family package
  local family=$1 version wanted folder
  version=$(sed -n "s|.*\"$2\": \"\([0-9.]*\)\".*|\1|p" "$here/$family/package.json")
  folder=$cache/$family-$version
  wanted=$(cat "$here/$family/package.json" "$here/$family/package-lock.json" | sha256sum | cut -d' ' -f1)
  if [[ $(cat "$folder/.stamp" 2>/dev/null) == "$wanted" ]]; then
    say "$family: up to date"
    return
  fi
  command -v npm >/dev/null || { say "Node.js 20 or newer with npm is needed for $family (no 'npm' in PATH)" >&2; exit 1; }
  say "$family: installing"
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$here/$family/package.json" "$here/$family/package-lock.json" "$folder"
  (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent)
  echo "$wanted" >"$folder/.stamp"
}

main() {
  local families=("$@") wanted_family family program package flags
  ((${#families[@]})) || families=(kubernetes etcd kwok karpenter prometheus service-controller nomad-client moto prism)
  require_go
  mkdir -p "$cache/.stamps"
  # Two checkouts may share the cache: one builds, the other waits and then finds everything done.
  if command -v flock >/dev/null; then
    exec 9>"$cache/.lock"
    flock 9
  fi
  for wanted_family in "${families[@]}"; do
    if [[ $wanted_family == moto ]]; then
      install_moto
      continue
    fi
    if [[ $wanted_family == prism ]]; then
      install_node prism @stoplight/prism-cli
      continue
    fi
    [[ -f $here/$wanted_family/go.mod ]] || { say "unknown component family '$wanted_family'" >&2; exit 1; }
    while IFS='|' read -r family program package flags; do
      if [[ $family == "$wanted_family" ]]; then
        build "$family" "$program" "$package" "$flags" </dev/null
      fi
    done < <(programs)
    while IFS='|' read -r family program package flags; do
      if [[ $family == "$wanted_family" ]]; then
        gather "$family" "$program" "$package" "$flags" </dev/null
      fi
    done < <(files)
  done
}

main "$@"
