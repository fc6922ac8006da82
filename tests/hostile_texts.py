"""Texts that a careless renderer would execute, swallow or reorder. Every one must show as text.

What would execute sets `window.tripped` or asks for a page at example.invalid. EXECUTABLE is markup, TEXT the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

SCRIPTS = (
    "<script>window.tripped = 1</script>",
    "</script><script>window.tripped = 1</script>",
    "<img src=x onerror=window.tripped=1>",
    '"><img src=x onerror="window.tripped=1">',
    "'><img src=x onerror='window.tripped=1'>",
    "<svg onload=window.tripped=1>",
    "<svg><script>window.tripped=1</script></svg>",
    "<iframe srcdoc='<script>parent.tripped=1</script>'></iframe>",
    "<details open ontoggle=window.tripped=1>",
    "<input autofocus onfocus=window.tripped=1>",
    "<body onload=window.tripped=1>",
    "<a href='javascript:window.tripped=1'>here</a>",
    "<SCRIPT>window.tripped=1</SCRIPT>",
    "<scr<script>ipt>window.tripped=1</scr</script>ipt>",
    "<script src=https://example.invalid/x.js></script>",
    "<script type=module>window.tripped=1</script>",
    "<img/src=x/onerror=window.tripped=1>",
    "<img src=x onerror=&#119;indow.tripped=1>",
    "<image src=x onerror=window.tripped=1>",
    "<video><source onerror=window.tripped=1></video>",
    "<audio src=x onerror=window.tripped=1>",
    "<select autofocus onfocus=window.tripped=1>",
    "<textarea autofocus onfocus=window.tripped=1>",
    "<marquee onstart=window.tripped=1>x</marquee>",
    "<div onpointerenter=window.tripped=1>hover</div>",
    "<p tabindex=1 onfocus=window.tripped=1>",
    "<form action=javascript:window.tripped=1><button>go</button></form>",
    "<button formaction=javascript:window.tripped=1>go</button>",
    "<embed src=javascript:window.tripped=1>",
    "<template><script>window.tripped=1</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=window.tripped=1>'></noscript>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.tripped=1></style></mglyph></table></mtext></math>",
    "<svg><animate onbegin=window.tripped=1 attributeName=x dur=1s>",
    "<svg><a xlink:href=javascript:window.tripped=1><text x=9 y=9>x</text></a></svg>",
    "<svg><foreignObject><body onload=window.tripped=1></foreignObject></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x onload=window.tripped=1>#x'></svg>",
    "<div style='background:url(javascript:window.tripped=1)'>",
    "<p style=animation-name:x onanimationstart=window.tripped=1>",
)
MARKUP = (
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=https://example.invalid/x.css>",
    "<base href=https://example.invalid/>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid/'>",
    "<object data=https://example.invalid/></object>",
    "<math><mtext></mtext><img src=https://example.invalid/m.png></math>",
    "</section></td></table></div></details>",
    "<!-- ",
    "--><script>window.tripped=1</script>",
    "]]>",
    "<![CDATA[<script>window.tripped=1</script>]]>",
    "<?php echo 1 ?>",
    "</style><script>window.tripped=1</script>",
    "</textarea></title><script>window.tripped=1</script>",
    '" onmouseover="window.tripped=1" x="',
    "' onfocus='window.tripped=1' autofocus='",
    "` onmouseover=window.tripped=1 `",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<0xE2>",
    "<|endoftext|>",
    "<think>",
    "<b>bold</b><br>",
    "<i>plotly</i><sub>x</sub><sup>y</sup>",
    "<span style='color:red'>red</span>",
    "<extra></extra>",
    "<h1>",
    "<hr>",
    "<table><tr><td>",
    "<plaintext>",
    "<xmp>",
    "<frameset onload=window.tripped=1>",
    "<dialog open>",
    "<title>x</title>",
    "<img src=https://example.invalid/pixel.png>",
    "<iframe src=https://example.invalid/></iframe>",
    "<wb-card class='wb-card'>",
)
EXECUTABLE = SCRIPTS + MARKUP

ENTITIES = (
    "&lt;script&gt;", "&amp;amp;", "&#60;img&#62;", "&#x3c;svg onload=window.tripped=1&#x3e;", "&nbsp;",
    "&quot;&apos;", "&lt", "&#0;", "&#1114112;", "&NotAnEntity;", "&",
)  # fmt: skip
BIDIRECTIONAL = (
    "\u202egnp.exe", "\u2066\u2067\u2069\u200e\u200f", "\u202a\u202b\u202c\u202d", "\u061cab", "مرحبا", "שלום",
    "abc אבג def", "\u2068isolated\u2069", "(\u202e)",
)  # fmt: skip
INVISIBLE = (
    "\u200b\u2060\ufeff", "a\u200bb", "\u00ad", "\u034f", "\u115f\u1160", "\u3164", "\u2800", "\u180e",
    "\u2061\u2062\u2063\u2064", "\U000e0041\ue000", "\ufe0e\ufe0f", "\u00a0", "\u2003\u2009\u202f", "\u2028\u2029",
    "\ufff9\ufffa\ufffb", "\ufdd0\uffff",
)  # fmt: skip
CONTROLS = (
    "\x1b[31mred\x1b[0m", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x9b31m", "\x00\x07\x08", "\x7f", "\x0b\x0c",
    "\x85", "\r", "\r\n", "\t\r\n", "\x1a\x04", "\x0e\x0f",
)  # fmt: skip
BROKEN = ("\ud83d", "\ude00", "\udfff\ud800", "a\ud800b", "\ufffd", "\ufffd\ufffd")
LONG = (
    "a" * 3_000, "<" * 2_500, "word " * 600, "W" * 200, "𓀀" * 300, "\u0301" * 100,
    "Z\u0351\u0352\u0353\u0354\u0355\u0356\u0357\u0358",
)  # fmt: skip
TEMPLATES = (
    "${window.tripped=1}", "{{ constructor.constructor('window.tripped=1')() }}", "{{window.tripped=1}}",
    "{% raw %}{{ x }}{% endraw %}", "#{window.tripped=1}", "<%= window.tripped=1 %>", "{0} {name!r} %s %d %(x)s",
    "%{customdata[0]} %{y:.2f}", "%{text}<br>%{x}", "[[${7*7}]]", "__proto__", "constructor", "toString",
    "hasOwnProperty", "wb-card",
)  # fmt: skip
MARKDOWN = (
    "[x](javascript:window.tripped=1) ![y](https://example.invalid/y.png)",
    "\n\n```html\n",
    "```",
    "    indented code",
    "# heading",
    "> quote",
    "| a | b |",
    "***bold***",
    "~~gone~~",
    "<https://example.invalid/>",
    "[^1]: note",
    "---",
)
LATEX = (
    "$\\href{javascript:window.tripped=1}{x}$ and $$x^2$$", "$x$", "$$", "\\(a\\)\\[b\\]",
    "\\begin{align}x\\end{align}", "\\def\\x{\\x}\\x", "\\unicode{x3c}script", "$\\class{wb-card}{y}$",
)  # fmt: skip
WORDS = (
    " ", "", "  ", "👩\u200d🔬é", "👨\u200d👩\u200d👧\u200d👦", "🇩🇪", "e\u0301", "日本語", "ไทย", "नमस्ते",
    "'; DROP TABLE tokens; --", "../../etc/passwd", "NaN", "null", "undefined", "-0", "=cmd|' /C calc'!A0",
)  # fmt: skip
TEXT = ENTITIES + BIDIRECTIONAL + INVISIBLE + CONTROLS + BROKEN + LONG + TEMPLATES + MARKDOWN + LATEX + WORDS
HOSTILE_TEXTS = EXECUTABLE + TEXT


def check_each(check: Callable[[str], object], texts: Iterable[str] = HOSTILE_TEXTS) -> None:
    """Call `check(text)` for every text, whatever came of the others; then name each text that failed, with its error.

    One test, one message with every failure in it: nearly two hundred cases under one name.
    """
    failed = []
    for text in texts:
        try:
            check(text)
        except Exception as error:  # an assertion too
            failed.append(f"{ascii(text)[:80]}: {type(error).__name__}: {ascii(str(error))[:300]}")
    assert not failed, f"{len(failed)} texts failed\n" + "\n".join(failed)
