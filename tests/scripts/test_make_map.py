"""The map of the code says what the code says."""

from scripts.make_map import TARGET, build_map


def test_the_map_is_the_codes():
    assert TARGET.read_text(encoding="utf-8") == build_map(), "run scripts/make_map.py"
