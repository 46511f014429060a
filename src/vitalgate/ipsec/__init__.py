"""IPsec: AH and ESP (RFC 4301 to 4303), their databases, and the engine that ties them."""
