"""`lightsweep report`: write the HTML report of a study."""

import argparse

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Write the report, print its advice and where it is."""
    from sweeps.cli.summary import advice_lines
    from sweeps.core.paths import REPORT, require_no_link, study_dir
    from sweeps.report.build import make_report

    report = make_report(args.study, store_dir=args.store_dir, uri=args.uri)
    for line in advice_lines(report.advice, report.summary):
        print(line)
    folder = study_dir(args.store_dir, args.study)
    if not args.output:
        require_no_link(folder)
    path = args.output or folder / REPORT
    report.write(path)
    print(f"The report is in {path}")
    if args.png is not None:
        files = report.write_plots(args.png)
        print(
            f"The plots are in {args.png}: {', '.join(file.name for file in files) or 'there is nothing to draw yet'}"
        )
    return 0
