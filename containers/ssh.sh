# OpenSSH as the user who runs the image: keys only, a port above 1024, this machine alone unless told otherwise.
#
#     apptainer run --app ssh IMAGE [--port 2222] [--address 127.0.0.1] [--keys ~/.ssh/authorized_keys]
set -eu
port=2222 address=127.0.0.1 keys="$HOME/.ssh/authorized_keys"
while [ $# -gt 0 ]; do
    case "$1" in
        --port) port=$2 ;;
        --address) address=$2 ;;
        --keys) keys=$2 ;;
        *) echo "ssh: unknown argument $1; known are --port, --address and --keys" >&2; exit 2 ;;
    esac
    shift 2
done
case "$port" in
    *[!0-9]* | "") echo "ssh: --port $port is no number" >&2; exit 2 ;;
esac
[ "$port" -gt 1024 ] || { echo "ssh: --port $port belongs to root; take one above 1024" >&2; exit 2; }
[ -s "$keys" ] || { echo "ssh: $keys: no keys there; name a file with your public keys: --keys FILE" >&2; exit 2; }

folder=$(mktemp -d) # host keys that end with this server
server=
trap 'rm -rf "$folder"' EXIT
trap '[ -z "$server" ] || kill "$server"' INT TERM
ssh-keygen -q -t ed25519 -N '' -f "$folder/host_key"
# A copy that only its owner can write; folders above it may belong to users that this namespace does not know.
cp "$keys" "$folder/authorized_keys"
chmod 600 "$folder/authorized_keys"
cat >"$folder/config" <<END
Port $port
ListenAddress $address
HostKey $folder/host_key
PidFile none
AuthorizedKeysFile $folder/authorized_keys
StrictModes no
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
AllowUsers $(id -un)
AllowTcpForwarding local
X11Forwarding no
SetEnv PATH=$PATH
Subsystem sftp internal-sftp
END
echo "ssh -p $port $(id -un)@$address    host key $(ssh-keygen -lf "$folder/host_key.pub" | cut -d' ' -f2)" >&2
"$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$folder/config" &
server=$!
wait "$server"
