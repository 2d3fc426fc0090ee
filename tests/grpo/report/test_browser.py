"""The report in a real browser: light and dark, wide and narrow, no error, no request to anyone."""

from tests.browser import chromium

LOOK = """({
  width: document.documentElement.scrollWidth,
  images: [...document.images].map(image => image.naturalWidth),
  charts: [...document.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().width),
  hidden: [...document.querySelectorAll(".scroll")].map(box => box.scrollWidth - box.clientWidth),
  ink: getComputedStyle(document.querySelector("svg text")).fill,
  page: getComputedStyle(document.body).backgroundColor,
  scripts: document.scripts.length,
})"""


def test_browser_shows_it_without_errors_and_without_asking_anyone(finished, tmp_path):
    url = (finished / "report.html").as_uri()
    seen = {}
    with chromium(tmp_path / "profile") as browser:
        for width in (1200, 390):
            for scheme in ("light", "dark"):
                browser.open(url, width, scheme)
                look = seen[width, scheme] = browser.evaluate(LOOK)
                assert look["width"] <= width and set(look["hidden"]) == {0}
                assert len(look["images"]) == 42 and all(look["images"])
                assert len(look["charts"]) == 7 and min(look["charts"]) > 280
                assert look["scripts"] == 0
                assert not browser.named("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
                requests = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
                assert [request for request in requests if not request.startswith("data:")] == [url]
    light, dark = seen[1200, "light"], seen[1200, "dark"]
    assert light["ink"] != dark["ink"] and light["page"] != dark["page"]
