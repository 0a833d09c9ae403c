"""Markdown tables and wrapped paragraphs."""

from training.markdown import table, wrap


def test_table_with_an_empty_cell() -> None:
    assert table(("", 1), [("a", "")]) == "| | 1 |\n|---|---|\n| a | |"


def test_paragraphs_and_items_are_wrapped_and_the_rest_is_kept() -> None:
    document = "\n\n".join(
        [
            "# Title " + "long " * 30,
            "word " * 30 + "`code with spaces` " + "word " * 20,
            "- item " * 30 + "\n- second",
            "| cell " * 30 + "|",
        ]
    )
    blocks = wrap(document).split("\n\n")
    assert blocks[0].count("\n") == 0
    assert all(len(line) <= 100 for line in blocks[1].splitlines())
    assert "`code with spaces`" in blocks[1]
    assert blocks[2].splitlines()[1].startswith("  ")
    assert blocks[2].endswith("\n- second")
    assert blocks[3].count("\n") == 1  # only the end of the document
    assert wrap(wrap(document)) == wrap(document)
