import csv

from hica_simulations.experiments.pages import Table, markdown, write_csv, write_page


def test_a_table_becomes_markdown():
    table = Table(["a", "b"], [["1", "2"]])
    assert markdown(table) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_a_page_is_one_file_and_what_is_in_it_is_no_markup(tmp_path):
    (tmp_path / "p.png").write_bytes(b"picture")
    table = Table(["<a>", "{b}"], [["1 < 2", "x"], ["3", "y"]])
    write_page(tmp_path / "r.html", "T & U", table, tmp_path / "p.png", "100 % {sure}")
    page = (tmp_path / "r.html").read_text()
    assert "<h1>T &amp; U</h1>" in page and "base64,cGljdHVyZQ==" in page
    assert "<th>&lt;a&gt;</th><th>{b}</th>" in page
    assert "<td>1 &lt; 2</td><td>x</td>" in page and "<p>100 % {sure}</p>" in page
    assert "http" not in page


def test_rows_become_csv(tmp_path):
    rows = [{"study": "s", "auroc": 0.5}, {"study": "t", "auroc": None, "more": 1}]
    write_csv(rows, tmp_path / "new" / "table.csv")
    with (tmp_path / "new" / "table.csv").open() as found:
        assert list(csv.DictReader(found)) == [
            {"study": "s", "auroc": "0.5", "more": ""},
            {"study": "t", "auroc": "", "more": "1"},
        ]
