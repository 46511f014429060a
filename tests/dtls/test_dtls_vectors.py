"""Key schedules against published values: TLS 1.2's PRF, RFC 8448 section 3, RFC 8439 and FIPS 197 for the masks."""

from vitalgate.dtls.prf import premaster_psk, prf
from vitalgate.dtls.protection13 import _mask
from vitalgate.dtls.schedule import digest, expand_label, extract
from vitalgate.dtls.suites import SUITES

TLS = b"tls13 "
CLIENT_HELLO = bytes.fromhex(
    "010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000006130113031302010000"
    "910000000b0009000006736572766572ff01000100000a00140012001d001700180019010001010102010301040023000000"
    "3300260024001d002099381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304000d"
    "0020001e040305030603020308040805080604010501060102010402050206020202002d00020101001c00024001"
)
SERVER_HELLO = bytes.fromhex(
    "020000560303a6af06a4121860dc5e6e60249cd34c95930c8ac5cb1434dac155772ed3e2692800130100002e00330024001d"
    "0020c9828876112095fe66762bdbf7c672e156d6cc253b833df1dd69b1b04e751f0f002b00020304"
)


def test_the_prf_with_sha_256():
    secret = bytes.fromhex("9bbe436ba940f017b17652849a71db35")
    seed = bytes.fromhex("a0ba9f936cda311827a6f796ffd5198c")
    expected = (
        "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af"
        "0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66"
    )
    assert prf("sha256", secret, b"test label", seed, 100).hex() == expected


def test_the_premaster_secret_of_psk():
    """RFC 4279 section 2 and RFC 5489 section 2."""
    assert premaster_psk(b"\1\2\3").hex() == "0003000000" + "0003010203"
    assert premaster_psk(b"\1\2\3", b"\xaa\xbb").hex() == "0002aabb0003010203"


def test_the_key_schedule_with_the_labels_of_tls():
    """RFC 8448 section 3: the functions are TLS 1.3's; DTLS 1.3 changes the prefix alone (RFC 9147 section 5.9)."""
    zeros, empty = bytes(32), digest("sha256", b"")
    early = extract("sha256", zeros, zeros)
    assert early.hex() == "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a"
    derived = expand_label("sha256", early, b"derived", empty, 32, TLS)
    assert derived.hex() == "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba"
    agreed = bytes.fromhex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d")
    handshake = extract("sha256", derived, agreed)
    assert handshake.hex() == "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac"
    so_far = digest("sha256", CLIENT_HELLO + SERVER_HELLO)
    client = expand_label("sha256", handshake, b"c hs traffic", so_far, 32, TLS)
    assert client.hex() == "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"
    server = expand_label("sha256", handshake, b"s hs traffic", so_far, 32, TLS)
    assert server.hex() == "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"
    assert expand_label("sha256", server, b"key", b"", 16, TLS).hex() == "3fce516009c21727d0f2e4e86ee403bc"
    assert expand_label("sha256", server, b"iv", b"", 12, TLS).hex() == "5d313eb2671276ee13000b30"
    master = extract("sha256", expand_label("sha256", handshake, b"derived", empty, 32, TLS), zeros)
    assert master.hex() == "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919"


def test_the_labels_of_dtls_differ():
    secret = bytes(32)
    assert expand_label("sha256", secret, b"key", b"", 16) != expand_label("sha256", secret, b"key", b"", 16, TLS)
    assert expand_label("sha256", secret, b"key", b"", 16) == expand_label("sha256", secret, b"key", b"", 16, b"dtls13")


def test_the_mask_is_one_block_of_aes():
    """FIPS 197 appendix B: the first bytes of the block cipher's output."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    sample = bytes.fromhex("3243f6a8885a308d313198a2e0370734")
    assert _mask(SUITES[0x1301], key)(sample)[:2].hex() == "3925"


def test_the_mask_is_the_beginning_of_a_block_of_chacha20():
    """RFC 8439 section 2.3.2: counter 1 (little-endian), nonce 000000090000004a00000000."""
    sample = bytes.fromhex("01000000" + "000000090000004a00000000")
    assert _mask(SUITES[0x1303], bytes(range(32)))(sample)[:2].hex() == "10f1"
