"""The layers of the project hold: no import runs up, no module imports itself through others, no room is crowded."""

from collections import Counter
from graphlib import TopologicalSorter

from tests.support.layers import LAYER, ROOT, arrows, imports, modules

LONGEST, CROWDED = 350, 12


def test_every_room_imports_only_rooms_below_it():
    upward = [(room, target) for room, found in arrows().items() for target in found if LAYER[target] >= LAYER[room]]
    assert upward == []


def test_no_module_imports_itself_through_others():
    TopologicalSorter(imports()).prepare()  # raises CycleError, which names the circle


def test_no_file_is_long_and_no_folder_crowded():
    paths = modules().values()
    assert [str(path.relative_to(ROOT)) for path in paths if len(path.read_text().splitlines()) > LONGEST] == []
    folders = Counter(path.parent for path in paths if path.name != "__init__.py")
    assert [str(folder.relative_to(ROOT)) for folder, count in folders.items() if count > CROWDED] == []
