"""The ETSI CoAP#4 test cases as a runner of our own, for any client and any server."""
