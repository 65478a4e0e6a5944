"""What a guest runs, as user data, to have its address by DHCP and by nothing else: as an image does that does not read
the config drive."""

ASKS = """#!/bin/sh
exec >/dev/console 2>&1
ip addr flush dev eth0
cat >/run/lease <<'END'
#!/bin/sh
case $1 in
    deconfig) ip addr flush dev eth0 ;;
    bound) ip addr add $ip/24 dev eth0 ;;
esac
ip link set eth0 up
END
chmod 755 /run/lease
exec udhcpc -i eth0 -s /run/lease -t 1000 -T 2 -A 2 -f
"""
