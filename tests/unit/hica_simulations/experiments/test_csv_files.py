import csv

from hica_simulations.experiments.csv_files import write_csv


def test_rows_become_csv(tmp_path):
    rows = [{"study": "s", "auroc": 0.5}, {"study": "t", "auroc": None, "more": 1}]
    write_csv(rows, tmp_path / "new" / "table.csv")
    with (tmp_path / "new" / "table.csv").open() as found:
        assert list(csv.DictReader(found)) == [
            {"study": "s", "auroc": "0.5", "more": ""},
            {"study": "t", "auroc": "", "more": "1"},
        ]
