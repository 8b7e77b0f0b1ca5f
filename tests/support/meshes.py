"""Meshes as ModelNet40 has them, and entries of furniture catalogues with theirs."""

TETRAHEDRON = "OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
BOX = (
    "OFF\n8 6 0\n0 0 0\n1 0 0\n1 2 0\n0 2 0\n0 0 3\n1 0 3\n1 2 3\n0 2 3\n"
    "4 0 1 2 3\n4 4 5 6 7\n4 0 1 5 4\n4 2 3 7 6\n4 0 3 7 4\n4 1 2 6 5\n"
)

CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 4) for z in (0, 1)]  # of a pillar, y upwards
SIDES = (
    "vt 0 0\nvn 0 0 1\nusemtl wood\nf 1/1/1 2/1/1 4/1/1 3/1/1\nf 5 6 8 7\nf 1 2 6 5\nf 3 4 8 7\nf 1 3 7 5\nf 2 4 8 6\n"
)
PILLAR = "mtllib pillar.mtl\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS) + SIDES
HEAD = "# a catalogue\nid=Test#Models\nname=Test\nlicense=Public domain \xa9\n\ndropOnTopElevation#-1\n"


def entry(number: int, name: str, room: str, model: str, **more: str) -> str:
    fields = {
        "id": f"Test#{number}",
        "name": name,
        "category": room,
        "model": f"/test/{model}",
        "creator": "Ann",
        **more,
    }
    return "".join(f"{field}#{number}={value}\n" for field, value in fields.items())
