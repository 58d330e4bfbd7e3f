"""Adds up the JUnit files of a test run: prints "N passed, N failed" last and exits with 1 if anything failed.

usage: count_tests.py FOLDER, with NAME.xml of each runner and NAME.failed where its exit code was not 0
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def outcome(case):
    if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
        return "failed"
    if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def main():
    folder = pathlib.Path(sys.argv[1])
    runners = sorted({path.stem for path in folder.iterdir()})
    # By name: pytest reports a case that fails in its body and again in its tear-down twice.
    outcomes = {}
    for runner in runners:
        failed = False
        try:
            cases = list(ElementTree.parse(folder / f"{runner}.xml").iter("testcase"))
        except (OSError, ElementTree.ParseError):
            cases = []
        for case in cases:
            key = (runner, case.get("classname"), case.get("name"))
            value = outcome(case)
            failed = failed or value == "failed"
            if outcomes.get(key) != "failed":
                outcomes[key] = value
        if (folder / f"{runner}.failed").exists() and not failed:
            # The runner itself failed: a crash, nothing to run, an error while collecting.
            outcomes[(runner, "", "the run itself")] = "failed"
    for (runner, _, name), value in outcomes.items():
        if value != "passed":
            print(f"{value}: {runner}: {name}")
    count = {value: list(outcomes.values()).count(value) for value in ("passed", "failed", "skipped")}
    if not outcomes:
        print("no test ran")
        count["failed"] = 1
    if count["skipped"]:
        print(f"{count['skipped']} skipped")
    print(f"{count['passed']} passed, {count['failed']} failed")
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
