# Sourced by ./test: Debian packages whose programs the tests call (guests come through the cache instead).

TEST_PACKAGES="qemu-system-x86 acpica-tools binutils cpio dmidecode chromium chromium-driver"

ensure_packages() {
    local missing="" package
    command -v dpkg-query >/dev/null || return 0
    for package in $TEST_PACKAGES; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" != 0 ]; then
        say "some tests will be skipped; for all of them: sudo apt-get install$missing"
        return 0
    fi
    say "installing for the tests:$missing"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } \
        >/dev/null || { [ "${CI:-}" = true ] && fail "apt-get could not install$missing"; say "not installed:$missing"; }
}
