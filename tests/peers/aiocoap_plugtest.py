"""aiocoap's server with the resources of the ETSI plugtests, by aiocoap's own means: ``aiocoap_plugtest.py PORT``."""

import asyncio
import itertools
import logging
import sys

import aiocoap
from aiocoap import resource
from aiocoap.numbers import ContentFormat
from aiocoap.util import linkformat

LARGE = b"".join(b"%04d a line of a large representation\n" % number for number in range(60))


class Fixed(resource.Resource):
    """The same content always."""

    def __init__(self, content, content_format=0, **attributes):
        super().__init__()
        self.content, self.content_format = content, content_format
        self.attributes = attributes

    def get_link_description(self):
        return super().get_link_description() | self.attributes

    async def render_get(self, request):
        return aiocoap.Message(payload=self.content, content_format=self.content_format)


class Stored(resource.ObservableResource):
    """What clients may replace and delete, with ETags."""

    def __init__(self, content, observable=False):
        super().__init__()
        self.content, self.content_format, self.observable = content, 0, observable

    async def add_observation(self, request, serverobservation):
        if self.observable:
            await super().add_observation(request, serverobservation)

    def replace(self, content, content_format=0):
        self.content, self.content_format = content, content_format
        self.updated_state()

    async def render_get(self, request):
        if self.content is None:
            raise aiocoap.error.NotFound
        response = aiocoap.Message(payload=self.content, content_format=self.content_format)
        resource.hashing_etag(request, response)
        if self.observable:
            response.opt.max_age = 1
        return response

    async def render_put(self, request):
        if request.opt.if_match and (await self.render_get(request)).opt.etag not in request.opt.if_match:
            return aiocoap.Message(code=aiocoap.PRECONDITION_FAILED)
        if request.opt.if_none_match and self.content is not None:
            return aiocoap.Message(code=aiocoap.PRECONDITION_FAILED)
        created = self.content is None
        self.replace(request.payload, request.opt.content_format or 0)
        return aiocoap.Message(code=aiocoap.CREATED if created else aiocoap.CHANGED)

    async def render_delete(self, request):
        self.replace(None)
        return aiocoap.Message(code=aiocoap.DELETED)


class Test(Stored):
    """/test, whose POST makes something."""

    async def render_post(self, request):
        return aiocoap.Message(code=aiocoap.CREATED, location_path=("location1", "location2", "location3"))


class LocationQuery(resource.Resource):
    async def render_post(self, request):
        return aiocoap.Message(code=aiocoap.CREATED, location_query=("first=1", "second=2"))


class Query(resource.Resource):
    async def render_get(self, request):
        return aiocoap.Message(payload=" ".join(request.opt.uri_query).encode(), content_format=0)


class Separate(resource.Resource):
    async def render_get(self, request):
        await asyncio.sleep(0.4)
        return aiocoap.Message(payload=b"after a while", content_format=0)


class MultiFormat(resource.Resource):
    async def render_get(self, request):
        if request.opt.accept == ContentFormat.by_media_type("application/xml"):
            return aiocoap.Message(payload=b"<text/>", content_format=41)
        return aiocoap.Message(payload=b"text", content_format=0)


class LargeCreate(resource.Resource):
    def __init__(self, site):
        super().__init__()
        self.site, self.count = site, itertools.count(1)

    async def render_post(self, request):
        name = str(next(self.count))
        self.site.add_resource(["large-create", name], Fixed(request.payload))
        return aiocoap.Message(code=aiocoap.CREATED, location_path=("large-create", name))


class LargePost(resource.Resource):
    async def render_post(self, request):
        return aiocoap.Message(code=aiocoap.CHANGED, payload=LARGE, content_format=0)


async def main(port):
    site = resource.Site()
    observed = {
        name: Stored(LARGE if "-l" in name else b"0", observable=True)
        for name in ("obs", "obs-non", "obs-large", "obs-pumping")
    }
    links = linkformat.LinkFormat([linkformat.Link(f"/path/sub{number}") for number in (1, 2, 3)])
    for path, added in (
        (".well-known/core", resource.WKCResource(site.get_resources_as_linkheader)),
        ("test", Test(b"the test")),
        ("validate", Stored(b"to validate")),
        ("create1", Stored(None)),
        ("large-update", Stored(LARGE)),
        ("seg1/seg2/seg3", Fixed(b"three segments")),
        ("query", Query()),
        ("separate", Separate()),
        ("multi-format", MultiFormat()),
        ("location-query", LocationQuery()),
        ("large", Fixed(LARGE, sz=str(len(LARGE)))),
        ("large-create", LargeCreate(site)),
        ("large-post", LargePost()),
        ("link1", Fixed(b"1", rt="Type1 Type2", **{"if": "If1"})),
        ("link2", Fixed(b"2", rt="Type2 Type3", **{"if": "If2"})),
        ("link3", Fixed(b"3", rt="Type1 Type3", **{"if": "foo"})),
        ("path", Fixed(str(links).encode(), 40, ct="40")),
        ("path/sub1", Fixed(b"sub1")),
        *observed.items(),
    ):
        site.add_resource(path.split("/"), added)
    await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port))
    for number in itertools.count(1):
        await asyncio.sleep(0.3)
        for name, each in observed.items():
            large = name == "obs-large" or (name == "obs-pumping" and number % 2)
            each.replace(b"%d\n" % number + (LARGE if large else b""))


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main(int(sys.argv[1])))
