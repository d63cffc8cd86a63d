from spp.cli.report_names import REPORTS
from spp.report import reports
from spp.report.published import load_published


def test_the_command_offers_what_there_is():
    assert tuple(reports.REPORTS) == REPORTS
    assert all(report.name == name for name, report in reports.REPORTS.items())


def test_every_table_has_a_legend_and_its_own_name(compared):
    tables = [table for report in reports.REPORTS.values() for table in report.tables(compared, load_published())]
    assert all(table.rows and all(table.legend) for table in tables)
    assert len({table.name for table in tables}) == len(tables)
    letters = [line[0] for table in tables for line in table.legend if line[1] == ":"]
    marks = {mark for table in tables for row in table.rows for cell in row for mark in cell.marks}
    assert marks <= set(letters)
