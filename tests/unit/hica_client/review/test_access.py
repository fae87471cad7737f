import re

from hica_client.review.access import HEADERS, NO_COOKIE, NOT_HERE, USED


def test_the_token_opens_the_page_once_for_a_cookie_that_no_script_reads(stranger, access):
    assert stranger.get("/").status_code == 403
    opened = stranger.get(access.address)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert access.token not in cookie
    assert stranger.get("/").status_code == 200
    again = stranger.get(access.address)
    assert (again.status_code, again.text) == (403, USED)
    assert "set-cookie" not in again.headers


def test_a_wrong_token_opens_nothing_and_does_not_use_the_right_one_up(stranger, access):
    for token in ("", "wrong", "ä"):
        assert stranger.get("/enter", params={"token": token}).status_code == 403
    assert stranger.get("/").text == NO_COOKIE
    assert stranger.get(access.address).status_code == 303


def test_without_the_cookie_nothing_is_shown(browser, desk):
    key = next(iter(desk.rows))
    cookies, browser.cookies = dict(browser.cookies), {}
    for path in ("/", "/asset/page.js", "/api/desk", f"/small/{key}", "/openapi.json", "/docs"):
        assert browser.get(path).status_code == 403
    (name,) = cookies
    browser.cookies.set(name, "wrong")
    assert browser.get("/").status_code == 403


def test_another_host_is_refused_even_with_token_and_cookie(browser):
    """A name of the network that was made to point at this machine (DNS rebinding)."""
    for host in ("evil.example:8123", "127.0.0.1", "127.0.0.1:80", "0.0.0.0:8123", ""):
        assert browser.get("/api/desk", headers={"host": host}).text == NOT_HERE
        assert browser.get("/enter", headers={"host": host}).text == NOT_HERE


def test_what_does_not_come_from_the_page_changes_nothing(browser, desk):
    key = next(iter(desk.rows))
    del browser.headers["origin"]
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9", None):
        headers = {"origin": origin} if origin else {}
        said = browser.post(f"/api/images/{key}", json={"verdict": "reject"}, headers=headers)
        assert said.status_code == 403
    assert desk.standing.all == ()


def test_every_answer_forbids_what_is_from_elsewhere_and_what_stays(browser):
    for path in ("/", "/api/desk", "/nowhere", "/enter"):
        answer = browser.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "http" not in policy


def test_no_file_of_the_page_names_another_machine_or_makes_html_of_text(browser):
    page = browser.get("/").text
    files = re.findall(r'(?:src|href)="(/[^"]*)"', page)
    assert set(files) == {"/asset/page.css", "/asset/page.js"}
    scripts = {"page.js"} | {"ask.js", "gallery.js", "clusters.js"}
    scripts |= {"labels.js", "regions.js", "facts.js"}
    for text in [page, *(browser.get(f"/asset/{name}").text for name in scripts)]:
        assert len(text) > 200 and "//" not in re.sub(r"(?m)^\s*// .*$|; // .*$", "", text)
        for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"):
            assert risky not in text
    assert browser.get("/asset/page.py").status_code == 404
    assert browser.get("/asset/../desk.py").status_code == 404
