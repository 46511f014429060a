"""IPv4, IPv6, UDP and ICMP as pure functions over bytes."""
