# Runs a Postgres server until standard input closes, which the kernel does for whoever holds its other end, however
# that ends; then nothing of it is left. Arguments: the folder of the programs, the server's own folder.
trap '' HUP INT QUIT TERM
programs=$1
directory=$2

"$programs/initdb" --pgdata="$directory/data" --username=millpond --auth=trust --encoding=UTF8 --locale=C --no-sync \
    </dev/null || { rm -rf "$directory"; exit 1; }

# A command in the background would lose standard input.
exec 3<&0
"$programs/postgres" -D "$directory/data" -c listen_addresses= -c unix_socket_directories="$directory" \
    -c unix_socket_permissions=0700 3<&- </dev/null &
server=$!
# QUIT: at once; the data is thrown away. Again, since a server that has just begun does not hear it.
{ read -r _ <&3; while kill -QUIT "$server"; do sleep 0.1; done; } 2>/dev/null &
reader=$!
wait "$server"
kill -KILL "$reader" 2>/dev/null
rm -rf "$directory"
