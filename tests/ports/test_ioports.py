"""`/proc/ioports`: the text, the tree's rules (Linux, kernel/resource.c), the map of a space, the diff."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.ports import Device, PortRange, PortSpace
from portvisor.ports.ioports import (
    DEEPEST_LEVEL,
    LAST_PORT,
    Difference,
    IoportsError,
    Resource,
    ResourceError,
    Row,
    diff,
    from_port_space,
    load,
    new_tree,
    parse,
    render,
)

SEED = Path(__file__).parents[1] / "data" / "seed-ioports.txt"

ports = st.integers(0, LAST_PORT)
small_ports = st.integers(0, 0x3F)
names = st.text(
    st.characters(max_codepoint=0x2FF, exclude_categories=("C", "Z"), include_characters=" "), max_size=20
)


@st.composite
def ranges(draw: st.DrawFn, port: st.SearchStrategy[int] = ports) -> tuple[int, int]:
    first, last = draw(port), draw(port)
    return min(first, last), max(first, last)


@st.composite
def trees(draw: st.DrawFn, port: st.SearchStrategy[int] = ports) -> Resource:
    """Any tree that insertions and requests can make."""
    tree = new_tree()
    for start, end in draw(st.lists(ranges(port), max_size=24)):
        new = Resource(start, end, draw(names))
        if draw(st.booleans()):
            tree.insert(new)
        else:
            tree.request(new)
    return tree


def assert_sound(node: Resource) -> None:
    """Siblings are sorted and disjoint, children lie inside."""
    for child in node.children:
        assert node.contains(child)
        assert_sound(child)
    for left, right in zip(node.children, node.children[1:], strict=False):
        assert left.end < right.start


class TestText:
    def test_the_listing_of_the_server_comes_back_byte_for_byte(self) -> None:
        assert render(load(SEED)).encode() == SEED.read_bytes()

    def test_the_listing_of_the_server_as_a_tree(self) -> None:
        tree = load(SEED)
        assert [child.name for child in tree.children] == [
            *["PCI Bus 0000:00"] * 3,
            "PCI conf1",
            "PCI Bus 0000:00",
            "PCI Bus 0000:80",
        ]
        megasas = list(tree.walk())[42]
        assert megasas == Row(3, 0x2000, 0x20FF, "megasas: LSI")
        assert len(list(tree.walk())) == 64

    def test_the_product_ships_the_same_listing(self) -> None:
        shipped = Path(__file__).parents[2] / "src" / "portvisor" / "guest" / "data" / "seed-ioports.txt"
        assert shipped.read_bytes() == SEED.read_bytes()

    def test_empty(self) -> None:
        assert render(parse("")) == ""

    def test_the_last_newline_may_be_missing(self) -> None:
        assert render(parse("0060-0060 : keyboard")) == "0060-0060 : keyboard\n"

    def test_names_keep_colons_and_spaces(self) -> None:
        text = "0060-0060 : a : b  \n0061-0061 : \n"
        assert render(parse(text)) == text

    @given(trees())
    @settings(max_examples=60)
    def test_round_trip_of_any_tree(self, tree: Resource) -> None:
        text = render(tree)
        again = parse(text)
        assert again == tree
        assert render(again) == text

    def test_linux_stops_indenting_after_five_levels(self) -> None:
        tree = new_tree()
        for level in range(9):
            tree.insert(Resource(level, 0x100 - level, f"level {level}"))
        tree.insert(Resource(0x80, 0x80, "level 9"))
        tree.insert(Resource(0xF0, 0xF1, "level 9"))
        tree.insert(Resource(0xFF, 0xFF, "level 2"))
        text = render(tree)
        assert [len(line) - len(line.lstrip()) for line in text.splitlines()] == [0, 2, 4, 6, 8, *[10] * 6, 4]
        assert parse(text) == tree


class TestMalformed:
    @pytest.mark.parametrize(
        ("text", "line", "problem"),
        [
            ("0000-001f : dma1\n\n", 2, "'' is not a row; allowed is"),
            ("0000-001f : dma1\n0020-0021: pic1\n", 2, "'0020-0021: pic1' is not a row"),
            ("0000-001F : dma1\n", 1, "lower-case hex digits"),
            ("00000000-0000001f : dma1\n", 1, "4 lower-case hex digits"),
            ("[root@host ~]# cat /proc/ioports\n0000-001f : dma1\n", 1, "is not a row"),
            ("0000-00ff : a\n\t0000-001f : dma1\n", 2, "is not a row"),
            ("0000-00ff : a\n   0000-001f : b\n", 2, "indent of 3 spaces; allowed here are 0, 2"),
            ("  0000-00ff : a\n", 1, "indent of 2 spaces; allowed here are 0"),
            ("0000-00ff : a\n    0000-001f : b\n", 2, "indent of 4 spaces; allowed here are 0, 2"),
            ("0020-001f : a\n", 1, "the first port must not be above the last"),
            ("0000-001f : a\n  0010-0020 : b\n", 2, "0010-0020 : b leaves its parent 0000-001f : a"),
            ("0000-001f : a\n001f-0020 : b\n", 2, "001f-0020 : b overlaps 0000-001f : a of the same level"),
            (
                "0020-002f : a\n0000-001f : b\n",
                2,
                "0000-001f : b comes after 0020-002f : a; siblings must be sorted",
            ),
            ("0000-001f : dma1\r\n0020-0021 : pic1\r\n", 1, "a name must be printable text on one line"),
            ("0000-0000 : a\n0000-0000 : b\n", 1, "hides the ports from ordinary users; read it as root"),
        ],
    )
    def test_says_where_and_what(self, text: str, line: int, problem: str) -> None:
        with pytest.raises(IoportsError) as caught:
            parse(text, "list.txt")
        assert caught.value.line == line
        assert str(caught.value).startswith(f"list.txt:{line}: ")
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_nesting_without_end(self) -> None:
        rows = [f"{' ' * 2 * min(level, 5)}0001-0001 : a\n" for level in range(DEEPEST_LEVEL + 2)]
        with pytest.raises(IoportsError, match=rf"^ioports:{len(rows)}: .* more than 64 levels deep$"):
            parse("".join(rows))

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        listing = tmp_path / "listing"
        listing.write_bytes(b"0000-001f : dma1\n0020-0021 : p\xffc1\n")
        with pytest.raises(IoportsError, match=r"listing:2: byte 0xff is not UTF-8 text"):
            load(listing)

    @given(st.text(st.sampled_from("0a-f: \n\t\r9gx"), max_size=60))
    @settings(max_examples=150)
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        try:
            tree = parse(text)
        except IoportsError:
            return
        assert render(tree).removesuffix("\n") == text.removesuffix("\n")


class TestTree:
    def test_request_gives_the_node_in_the_way(self) -> None:
        tree = new_tree()
        pic = Resource(0x20, 0x21, "pic1")
        assert tree.request(pic) is None
        assert tree.request(Resource(0x21, 0x22, "late")) is pic
        assert tree.children == [pic]

    def test_request_outside_gives_the_parent(self) -> None:
        window = Resource(0x100, 0x1FF, "window")
        assert window.request(Resource(0x1F0, 0x200, "across")) is window

    def test_region_inside_a_busy_region_conflicts(self) -> None:
        tree = new_tree()
        assert tree.request_region(0x20, 2, "pic1") is None
        conflict = tree.request_region(0x20, 2, "again")
        assert conflict is tree.children[0]
        assert conflict.name == "pic1"

    def test_region_goes_into_what_is_not_busy(self) -> None:
        tree = new_tree()
        tree.request(Resource(0x3000, 0x301F, "0000:00:1f.2", busy=False))
        assert tree.request_region(0x3000, 0x20, "ahci") is None
        assert render(tree) == "3000-301f : 0000:00:1f.2\n  3000-301f : ahci\n"

    def test_region_partly_in_a_resource_conflicts_with_it(self) -> None:
        tree = new_tree()
        window = Resource(0x3000, 0x301F, "window", busy=False)
        tree.request(window)
        assert tree.request_region(0x3010, 0x20, "ahci") is window

    def test_a_parsed_leaf_is_busy_and_a_parsed_window_is_not(self) -> None:
        tree = parse("3000-3fff : PCI Bus\n  3000-301f : ahci\n")
        assert tree.request_region(0x3020, 4, "new") is None
        assert str(tree.request_region(0x3000, 4, "late")) == "3000-301f : ahci"

    def test_release_undoes_request(self) -> None:
        tree = new_tree()
        tree.request(Resource(0x3000, 0x301F, "window", busy=False))
        tree.request_region(0x3000, 0x20, "ahci")
        assert tree.release_region(0x3000, 0x10) is None
        assert tree.release_region(0x4000, 0x10) is None
        assert str(tree.release_region(0x3000, 0x20)) == "3000-301f : ahci"
        assert render(tree) == "3000-301f : window\n"

    def test_insert_pushes_what_it_covers_below_it(self) -> None:
        tree = parse("0000-001f : dma1\n0020-0021 : pic1\n0cf8-0cff : PCI conf1\n")
        assert tree.insert(Resource(0, 0x3BB, "PCI Bus 0000:00")) is None
        assert render(tree) == (
            "0000-03bb : PCI Bus 0000:00\n  0000-001f : dma1\n  0020-0021 : pic1\n0cf8-0cff : PCI conf1\n"
        )

    def test_insert_of_the_same_range_goes_above(self) -> None:
        tree = parse("0430-0433 : iTCO_wdt\n")
        assert tree.insert(Resource(0x430, 0x433, "iTCO_wdt.0.auto")) is None
        assert render(tree) == "0430-0433 : iTCO_wdt.0.auto\n  0430-0433 : iTCO_wdt\n"

    def test_insert_goes_into_what_is_larger(self) -> None:
        tree = parse("1000-7fff : bus 0\n")
        assert tree.insert(Resource(0x2000, 0x2FFF, "bus 2")) is None
        assert render(tree) == "1000-7fff : bus 0\n  2000-2fff : bus 2\n"

    def test_insert_across_an_edge_gives_the_node_and_changes_nothing(self) -> None:
        text = "0000-001f : dma1\n0020-002f : pic1\n"
        tree = parse(text)
        assert str(tree.insert(Resource(0x00, 0x27, "new"))) == "0020-002f : pic1"
        assert str(tree.insert(Resource(0x08, 0x2F, "new"))) == "0000-001f : dma1"
        assert render(tree) == text

    @given(trees(small_ports), ranges(small_ports), st.booleans())
    @settings(max_examples=80)
    def test_a_refused_resource_changes_nothing(self, tree: Resource, new: tuple[int, int], insert: bool) -> None:
        before = render(tree)
        rows = len(before.splitlines())
        conflict = (tree.insert if insert else tree.request)(Resource(*new, "new"))
        assert_sound(tree)
        if conflict is None:
            assert len(render(tree).splitlines()) == rows + 1
        else:
            assert render(tree) == before
            assert conflict.overlaps(Resource(*new, "new"))

    @pytest.mark.parametrize(("start", "end"), [(-1, 0), (0, 0x10000), (5, 4)])
    def test_impossible_range(self, start: int, end: int) -> None:
        with pytest.raises(ResourceError, match="must not be above the last"):
            Resource(start, end, "x")


def space_of(*devices: tuple[str, list[PortRange]]) -> PortSpace:
    space = PortSpace()
    for name, device_ranges in devices:
        device = Device()
        device.name = name
        space.attach(device, device_ranges)
    return space


SHARED_SPACE = PortSpace()
"""One for all examples of a property: to make a space takes a while."""


class TestPortSpace:
    def test_rows_are_the_named_ranges(self) -> None:
        space = space_of(("pit", [PortRange(0x50, 4, name="timer1"), PortRange(0x40, 4, name="timer0")]))
        assert render(from_port_space(space)) == "0040-0043 : timer0\n0050-0053 : timer1\n"

    def test_a_range_without_name_has_its_device_s(self) -> None:
        assert render(from_port_space(space_of(("post", [PortRange(0x80, 1)])))) == "0080-0080 : post\n"

    def test_one_row_for_the_sizes_of_one_register_file(self) -> None:
        space = space_of(("ide", [PortRange(0x1F0, 1, {1, 2, 4}, "ide0"), PortRange(0x1F1, 7, name="ide0")]))
        assert render(from_port_space(space)) == "01f0-01f7 : ide0\n"

    def test_neighbours_of_different_devices_stay_apart(self) -> None:
        space = space_of(("a", [PortRange(0, 4, name="x")]), ("b", [PortRange(4, 4, name="x")]))
        assert render(from_port_space(space)) == "0000-0003 : x\n0004-0007 : x\n"

    def test_a_byte_inside_a_dword_register_lies_below_it(self) -> None:
        space = space_of(
            ("reset", [PortRange(0xCF9, 1, name="reset control")]),
            ("pci", [PortRange(0xCF8, 4, {4}, "PCI conf1"), PortRange(0xCFC, 4, {1, 2, 4}, "PCI conf1")]),
        )
        assert render(from_port_space(space)) == "0cf8-0cff : PCI conf1\n  0cf9-0cf9 : reset control\n"

    def test_a_range_partly_inside_another_is_cut(self) -> None:
        space = space_of(
            ("a", [PortRange(0x510, 4, {2}, "a")]),
            ("b", [PortRange(0x512, 4, {1}, "b")]),
            ("c", [PortRange(0x510, 8, {4}, "c")]),
        )
        assert render(from_port_space(space)) == (
            "0510-0517 : c\n  0510-0513 : a\n    0512-0513 : b\n  0514-0515 : b\n"
        )

    @given(st.lists(st.tuples(ranges(small_ports), st.sampled_from([1, 2, 4])), max_size=10))
    @settings(max_examples=60)
    def test_every_owned_port_is_on_a_row_and_no_other(self, wanted: list[tuple[tuple[int, int], int]]) -> None:
        space = SHARED_SPACE
        for old in space.devices():
            space.detach(old)
        for index, ((start, end), size) in enumerate(wanted):
            device = Device()
            device.name = f"d{index}"
            try:
                space.attach(device, [PortRange(start, end - start + 1, {size})])
            except ValueError:
                continue
        tree = from_port_space(space)
        assert_sound(tree)
        owned = {(port, device.name) for r, device in space.ranges() for port in range(r.base, r.last + 1)}
        shown = {(port, row.name) for row in tree.walk() for port in range(row.start, row.end + 1)}
        assert shown == owned
        assert render(parse(render(tree))) == render(tree)


def kinds(expected: str, actual: str) -> list[tuple[str, str, str]]:
    return [
        (row.difference.value, str(row.expected or ""), str(row.actual or ""))
        for row in diff(parse(expected), parse(actual)).rows
    ]


class TestDiff:
    def test_equal(self) -> None:
        result = diff(load(SEED), load(SEED))
        assert result.identical
        assert result.score() == "64 of 64"

    def test_name(self) -> None:
        assert kinds("0070-0071 : rtc0\n", "0070-0071 : rtc_cmos\n") == [
            ("name differs", "0070-0071 : rtc0", "0070-0071 : rtc_cmos")
        ]

    def test_range(self) -> None:
        assert kinds("0070-0071 : rtc0\n", "0070-0077 : rtc0\n") == [
            ("range differs", "0070-0071 : rtc0", "0070-0077 : rtc0")
        ]

    def test_range_that_moved(self) -> None:
        assert kinds("02f8-02ff : serial\n03f8-03ff : serial\n", "03f8-03ff : serial\n3e80-3e87 : serial\n") == [
            ("range differs", "02f8-02ff : serial", "3e80-3e87 : serial"),
            ("equal", "03f8-03ff : serial", "03f8-03ff : serial"),
        ]

    def test_indent(self) -> None:
        rows = kinds("0000-00ff : bus\n  0020-0021 : pic1\n", "0020-0021 : pic1\n")
        assert rows == [
            ("missing", "0000-00ff : bus", ""),
            ("indent differs", "  0020-0021 : pic1", "0020-0021 : pic1"),
        ]
        result = diff(parse("0000-00ff : bus\n  0020-0021 : pic1\n"), parse("0020-0021 : pic1\n"))
        assert (result.score(), result.score(ignore_indent=True)) == ("0 of 2", "1 of 2")

    def test_missing_and_extra_are_in_port_order(self) -> None:
        assert kinds("0060-0060 : a\n0064-0064 : b\n", "0062-0062 : c\n0064-0064 : b\n") == [
            ("missing", "0060-0060 : a", ""),
            ("extra", "", "0062-0062 : c"),
            ("equal", "0064-0064 : b", "0064-0064 : b"),
        ]

    def test_the_parent_s_row_is_not_taken_for_the_child_s(self) -> None:
        expected = "0ca8-0ca8 : pnp 00:09\n  0ca8-0ca8 : ipmi_si\n"
        assert kinds(expected, "0ca8-0ca8 : ipmi_si\n") == [
            ("missing", "0ca8-0ca8 : pnp 00:09", ""),
            ("indent differs", "  0ca8-0ca8 : ipmi_si", "0ca8-0ca8 : ipmi_si"),
        ]

    def test_counts(self) -> None:
        result = diff(load(SEED), parse("0000-03bb : PCI Bus 0000:00\n  0000-001f : DMA\nfff0-ffff : x\n"))
        assert result.expected == 64
        assert result.count(Difference.EQUAL) == 1
        assert result.count(Difference.NAME) == 1
        assert result.count(Difference.MISSING) == 62
        assert result.count(Difference.EXTRA) == 1
        assert not result.identical

    @given(trees(small_ports), trees(small_ports))
    @settings(max_examples=60)
    def test_every_row_is_in_exactly_one_pair(self, expected: Resource, actual: Resource) -> None:
        result = diff(expected, actual)
        assert sorted(map(str, expected.walk())) == sorted(str(r.expected) for r in result.rows if r.expected)
        assert sorted(map(str, actual.walk())) == sorted(str(r.actual) for r in result.rows if r.actual)
        assert result.identical == (render(expected) == render(actual))
