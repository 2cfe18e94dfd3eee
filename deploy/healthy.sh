# healthy.sh PORT [PATH]: exit status 0 where PORT is open and, with a PATH, answers it with 200. Bash alone: few images have curl.
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
[ $# -eq 1 ] && exit 0
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
read -r -t 3 _ status _ <&3 && [ "$status" = 200 ]
