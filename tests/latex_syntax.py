"""A check of the syntax of LaTeX tables: balanced braces and environments, known commands, and the number of cells in each row."""

import re

_KNOWN = {
    "begin",
    "end",
    "toprule",
    "midrule",
    "bottomrule",
    "textbf",
    "underline",
    "infty",
    "pm",
    "textbackslash",
    "textasciitilde",
    "textasciicircum",
    "textless",
    "textgreater",
    "textbar",
}


def check_latex(text: str) -> int:
    """Check the tabulars of a file; return the number of their rows, headers included."""
    code = re.sub(r"(?<!\\)%.*", "", text)
    for command in re.findall(r"\\([A-Za-z]+)", code):
        assert command in _KNOWN, f"unknown command \\{command}"
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", code)
    assert environments == [("begin", "tabular"), ("end", "tabular")] * (len(environments) // 2)
    assert code.count("\\toprule") == code.count("\\midrule") == code.count("\\bottomrule") == len(environments) // 2
    rows = 0
    for body in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", code, re.DOTALL):
        columns, rest = re.match(r"\{([lrc]+)\}(.*)", body, re.DOTALL).groups()
        for line in rest.split(r"\\"):
            row = re.sub(r"\\(top|mid|bottom)rule", "", line).strip()
            if not row:
                continue
            rows += 1
            plain = re.sub(r"\\[&%$#_{}]", "", row)  # escaped characters
            assert plain.count("&") == len(columns) - 1, row
            assert plain.count("$") % 2 == 0, row
            assert not re.search(r"[#_^~]", re.sub(r"\$[^$]*\$", "", plain)), f"not escaped: {row}"
            depth = 0
            for character in plain:
                depth += {"{": 1, "}": -1}.get(character, 0)
                assert depth >= 0, row
            assert depth == 0, row
    return rows
