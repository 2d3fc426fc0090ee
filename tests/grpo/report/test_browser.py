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
        for width in (1280, 375):
            for scheme in ("light", "dark"):
                browser.open(url, width, scheme)
                look = seen[width, scheme] = browser.evaluate(LOOK)
                assert look["width"] <= width and set(look["hidden"]) == {0}
                assert len(look["images"]) == 48 and all(look["images"])
                assert len(look["charts"]) == 8 and min(look["charts"]) > 280
                assert look["scripts"] == 1
                assert not browser.named("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
                requests = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
                assert [request for request in requests if not request.startswith("data:")] == [url]
    light, dark = seen[1280, "light"], seen[1280, "dark"]
    assert light["ink"] != dark["ink"] and light["page"] != dark["page"]


OPEN = """(() => {
  document.querySelectorAll("#pictures button.zoom")[0].click();
  return [...document.querySelectorAll("#viewer[open] .stage img")].map(picture =>
    [picture.alt.split(":")[0], picture.getBoundingClientRect().width / picture.naturalWidth,
     getComputedStyle(picture).imageRendering]);
})()"""
PLACE = "document.querySelector('#viewer').open && document.querySelector('.place').textContent"


def press(browser, key):
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Escape": 27}.get(key, 39)
        )


def test_pictures_are_enlarged_in_pairs_by_whole_factors_and_by_keyboard(finished, tmp_path):
    """A click shows both pictures of a pair without blur; arrow keys go on, Escape closes; the focus comes back."""
    with chromium(tmp_path / "profile") as browser:
        for width in (1280, 375):
            browser.open((finished / "report.html").as_uri(), width, "light")
            shown = browser.evaluate(OPEN)
            assert [title for title, _, _ in shown] == ["before", "after"]
            assert all(factor >= 2 and factor == round(factor) for _, factor, _ in shown)
            assert {rendering for _, _, rendering in shown} == {"pixelated"}
            assert browser.evaluate(PLACE) == 'a red sign that says "TAXI" (1 of 23)'
            press(browser, "ArrowRight")
            assert "(2 of 23)" in browser.evaluate(PLACE)
            press(browser, "Escape")
            assert browser.evaluate(PLACE) is False
            assert not browser.named("Runtime.exceptionThrown", "Log.entryAdded")
