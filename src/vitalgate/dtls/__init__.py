"""DTLS 1.2 (RFC 6347, the profile of RFC 7925) and DTLS 1.3 (RFC 9147) with connection IDs (RFC 9146), sans-IO."""
