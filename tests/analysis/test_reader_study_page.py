"The page of a reader study: a balanced sample that does not hold the truth, and a page that works in a real browser."
import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reader_study_cases import image_set, items_of, truth_of, value

from medgan.analysis.reader_study import guessing_test, read_answers, score_readers, study_page
from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data
from medgan.data.registry import DataError

def study_in(page_file):
    "What the page holds."
    text = page_file.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)[1])

# ---- the page's sample and what it gives away

def test_sample_is_balanced_and_without_repeats(tmp_path, real, generated):
    "Catches unequal numbers, an image drawn twice, and a question whose others are all of one condition."
    items = items_of(study_page(tmp_path/"a.html", real, generated, n=5))
    assert items.groupby(["kind", "condition"]).size().tolist() == [5]*6
    assert not items.duplicated(["kind", "source"]).any()
    items = items_of(study_page(tmp_path/"b.html", real, generated, design="condition", n=4))
    assert not items.duplicated(["kind", "source"]).any()
    assert items[items.asked == items.condition].groupby(["kind", "asked"]).size().tolist() == [4]*6
    assert items[items.asked != items.condition].groupby(["kind", "asked", "condition"]).size().tolist() == [2]*12
    items = items_of(study_page(tmp_path/"c.html", real, generated, design="condition", conditions="mel", n=3))
    assert set(items.asked) == {"mel"} and items.groupby(["kind", "condition"]).size().tolist() == [1, 3, 2]*2

def test_one_image_of_a_group(tmp_path, generated):
    "Catches two photographs of one lesion in a study."
    x = image_set("real")
    twins = as_image_data(x.images, name="real", labels=x.table.dx.to_numpy(), groups=np.arange(36)//2)
    items = items_of(study_page(tmp_path/"a.html", twins, generated, n=6))
    lesions = items.source[items.kind == "real"].astype(int)//2
    assert lesions.is_unique and len(lesions) == 18
    with pytest.raises(DataError, match="groups: condition 'bkl' has 6 of 7, 'mel' has 6 of 7, 'nv' has 6 of 7"):
        study_page(tmp_path/"b.html", twins, generated, n=7)

def test_same_seed_same_study(tmp_path, real, generated):
    "Catches a draw that does not depend on the seed alone."
    def key_of(name, seed): return study_page(tmp_path/f"{name}.html", real, generated, n=3, seed=seed)
    a, b, c = (key_of(name, seed).read_text(encoding="utf-8") for name, seed in dict(a=0, b=0, c=1).items())
    assert a == b and a != c
    assert (tmp_path/"a.html").read_bytes() == (tmp_path/"b.html").read_bytes()

@pytest.mark.parametrize("design", ["real", "condition"])
def test_page_does_not_hold_the_truth(tmp_path, real, generated, design):
    "Catches a name, an order or a way of encoding that tells real from generated."
    floats = generated.read(np.arange(len(generated)))["image"]              # as a generator gives them
    as_drawn = as_image_data(floats, name="generated", labels=generated.table.dx.to_numpy())
    key = study_page(tmp_path/"a.html", real, as_drawn, design=design, n=6)
    items, study = items_of(key), study_in(tmp_path/"a.html")
    assert all(set(item) == {"item", "question", "image"} for item in study["items"])
    assert set(study) == {"study", "title", "yes", "no", "items", "instructions"}
    images = [base64.b64decode(item["image"].partition(",")[2]) for item in study["items"]]
    chunks = {tuple(re.findall(rb"IHDR.{13}|tEXt|gAMA|sRGB|pHYs|PLTE|tIME|eXIf", data, re.S)) for data in images}
    assert len(chunks) == 1 and len(next(iter(chunks))) == 1              # one header, no extras
    is_real = np.array([items.kind[item["item"]] == "real" for item in study["items"]])
    def ranks(values): return np.argsort(np.argsort(values))
    for column in (np.arange(len(is_real)), ranks([item["item"] for item in study["items"]])):
        assert abs(np.corrcoef(column, is_real)[0, 1]) < .45               # 48 or 72 items: 3 standard errors
    assert study["items"] != sorted(study["items"], key=lambda item: item["item"])

def test_page_is_self_contained(tmp_path, real, generated):
    "Catches a font, a script or an image from elsewhere, and a page that may load one."
    study_page(tmp_path/"a.html", real, generated, n=2)
    text = (tmp_path/"a.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert "default-src 'none'" in text and "__STUDY__" not in text and "__TITLE__" not in text

def test_brain_slices(tmp_path):
    "Catches images of one channel."
    sets = [image_set(name, channels=1, classes=("all",), seed=seed) for seed, name in enumerate(("real", "generated"))]
    study_page(tmp_path/"a.html", *sets, n=2)
    assert len(study_in(tmp_path/"a.html")["items"]) == 4

# ---- refusals

@pytest.mark.parametrize("change, error, words", [
    (dict(design="turing"), ParameterError, "design='turing': must be one of 'real', 'condition'"),
    (dict(n=0), ParameterError, "n=0: must be a whole number from 1"),
    (dict(n=13), DataError, "real: too few images of different groups: condition 'bkl' has 12 of 13"),
    (dict(design="condition", n=7), DataError, "condition 'bkl' has 12 of 14"),
    (dict(seed=-1), ParameterError, "seed=-1"),
    (dict(conditions=["mel", "df"]), DataError, "'df' not in both sets; real has bkl, mel, nv; generated has bkl, mel, nv"),
    (dict(conditions=[]), DataError, "name at least one"),
    (dict(conditions=["mel", "mel"]), DataError, "each once"),
    (dict(generated=image_set("generated", channels=1)), DataError,
     "real has 16 x 16 px, 3 channel.s., generated has 16 x 16 px, 1 channel"),
    (dict(generated=image_set("generated", size=32)), DataError, "generated has 32 x 32 px"),
    (dict(generated=image_set("generated").subset(np.arange(0))), DataError, "generated has no images"),
    (dict(generated=image_set("generated", classes=("df",))), DataError,
     "no class in common: real has bkl, mel, nv; generated has df"),
    (dict(design="condition", generated=image_set("generated", classes=("nv",))), DataError, "at least two conditions"),
    (dict(real=[1, 2]), DataError, "images come as ImageData, tensor, array or folder"),
])
def test_refused_studies(tmp_path, real, generated, change, error, words):
    "Catches bad input that comes out as a strange page; nothing is written."
    good = dict(path=tmp_path/"a.html", real=real, generated=generated, n=2)
    with pytest.raises(error, match=words): study_page(**good | change)
    assert list(tmp_path.iterdir()) == []

def test_refused_paths(tmp_path, real, generated):
    "Catches a page without ending, in a place that cannot be written, and a key that is lost under another."
    def write(name, n=2): return study_page(tmp_path/name, real, generated, n=n)
    (tmp_path/"file").write_text("")
    with pytest.raises(ValueError, match="must end in .html"): write("a.htm")
    with pytest.raises(OSError, match="a.html' cannot be written"): write("file/a.html")
    (tmp_path/"b.html").mkdir()
    with pytest.raises(OSError, match="b.html' cannot be written: Is a directory"): write("b.html")
    key = write("c.html")
    before = key.read_bytes()
    assert write("c.html") == key
    with pytest.raises(FileExistsError, match="c.key.json is the key of another study"): write("c.html", n=3)
    assert key.read_bytes() == before

# ---- the page in a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic", "--disable-gpu",
         "--no-first-run"]
PHONE = dict(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True)

@pytest.fixture(scope="module")
def browser():
    "A headless Chromium: the machine's own, or the one that `playwright install chromium` gets."
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    with playwright.sync_playwright() as p:
        own = next(filter(None, map(shutil.which, BROWSERS)), None)
        if not own and not Path(p.chromium.executable_path).exists():
            pytest.skip(f"needs a browser: {', '.join(BROWSERS)} on the path, or `playwright install chromium`")
        browser = p.chromium.launch(executable_path=own, args=QUIET)
        yield browser
        browser.close()

@pytest.fixture
def visit(browser):
    "visit(page file, **options of the context): an open page; what goes wrong in it, or asks the network, fails the test."
    contexts, wrong = [], []
    def open_page(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.on("request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or wrong.append(request.url))
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        context.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        context.set_default_timeout(10000)
        page = context.new_page()
        page.goto(path.as_uri())
        return page
    yield open_page
    for context in contexts: context.close()
    assert not wrong

@pytest.fixture
def study(tmp_path, real, generated):
    "Page and key of 12 images."
    return tmp_path/"a.html", study_page(tmp_path/"a.html", real, generated, n=2, title="Skin & <b>bones</b></script>")

def start(page, name):
    page.fill("#name", name)
    page.click("#begin")

def item_on(page): return page.evaluate("order[state.at].item")

def respond(page, choice, how):
    "One answer by `how`, after the pause in which the page ignores double taps."
    page.wait_for_timeout(220)
    if how == "click": page.click(f"#{choice}")
    elif how == "tap": page.tap(f"#{choice}")
    else: page.keyboard.press(dict(arrow=dict(yes="ArrowLeft", no="ArrowRight"), letter=dict(yes="r", no="g"))[how][choice])

def saved(page, button, folder):
    with page.expect_download() as download: page.click(button)
    path = folder/download.value.suggested_filename
    download.value.save_as(path)
    return path

def test_from_first_click_to_scores(visit, study, tmp_path):
    "Catches an answer lost by a reload, a way of answering that does nothing, and files that cannot be read."
    page_file, key = study
    page, truth, reader = visit(page_file, **PHONE), truth_of(key), 'Dr. "Ä", M.'
    assert page.inner_text("h1") == "Skin & <b>bones</b></script>" and page.title() == "Skin & <b>bones</b></script>"
    assert "12 images" in page.inner_text("#instructions") and page.is_hidden("#rate")
    page.fill("#name", "   ")
    page.click("#begin")
    assert page.is_hidden("#rate")                                          # a name of spaces is none
    start(page, f" {reader} ")
    order, wrong = page.evaluate("order.map(item => item.item)"), None
    for i in range(12):
        assert page.inner_text("#count") == f"{i + 1} / 12" and item_on(page) == order[i]
        if i == 6:
            page.reload()
            assert page.inner_text("#count") == "7 / 12" and page.evaluate("order.map(item => item.item)") == order
            assert page.evaluate("document.getElementById('bar').value") == 6
        if i == 8:                                                          # back to the image before, and another answer
            page.wait_for_timeout(220)
            page.click("#back")
            assert item_on(page) == order[7] and page.get_attribute(f"#{truth[order[7]]}", "aria-pressed") == "true"
            wrong = order[7]
            respond(page, "no" if truth[wrong] == "yes" else "yes", "click")
            assert item_on(page) == order[8]
        respond(page, truth[order[i]], ("click", "arrow", "letter", "tap")[i % 4])
    assert page.inner_text("#done") == "All 12 answers are in. Thank you!"
    page.reload()                                                           # finished stays finished
    files = [saved(page, "#csv", tmp_path), saved(page, "#json", tmp_path)]
    assert [f.suffix for f in files] == [".csv", ".json"] and all(f.name.startswith("answers_s") for f in files)
    for path in files:
        answers = read_answers(path, key)
        assert set(answers.reader) == {reader} and answers.item.tolist() == order
        assert answers.item[answers.yes != answers.truth].tolist() == [wrong]
        assert (answers.ms >= 200).all() and answers.ms[7] > 400             # two visits
        scores = score_readers(answers)
        assert value(scores, "accuracy", reader)["value"] == 11/12 and guessing_test(answers).right[reader] == 11

def test_condition_study_goes_question_by_question(visit, tmp_path, real, generated):
    "Catches questions that are mixed up, and readers who get the same order."
    page_file = tmp_path/"b.html"
    study_page(page_file, real, generated, design="condition", n=1, names=dict(mel="melanoma"))
    page = visit(page_file)
    start(page, "a")
    assert page.inner_text("#yes") == "Yes"
    questions = page.evaluate("order.map(item => item.question)")
    assert len(questions) == 12 and sum(a != b for a, b in zip(questions, questions[1:])) == 2
    assert "Does this image show: melanoma?" in questions
    respond(page, "yes", "click")
    page.wait_for_timeout(220)
    page.keyboard.press("n")
    assert page.inner_text("#count") == "3 / 12"

def test_orders_are_random(visit, tmp_path, real, generated):
    "Catches an order that is the same for all, follows the file, or puts the real ones first."
    page_file = tmp_path/"a.html"
    key = study_page(page_file, real, generated, n=12)
    page = visit(page_file)
    shuffled = "name => { reader = name; return shuffled().map(item => item.item) }"
    orders = [page.evaluate(shuffled, f"reader {i}") for i in range(60)]
    is_real = items_of(key).kind == "real"
    position = pd.DataFrame({i: {item: at for at, item in enumerate(order)} for i, order in enumerate(orders)})
    together = position.corr().to_numpy()[np.triu_indices(60, 1)]
    assert len(position) == 72
    assert abs(together.mean()) < .02 and .08 < together.std() < .16              # of random orders: 0 and 1/sqrt(71) = .12
    assert abs(position.corrwith(is_real.astype(float)).mean()) < .06             # standard error .015
    first = pd.Series([order[0] for order in orders]).value_counts()
    assert first.max() < 8

def test_double_tap_and_held_key_answer_once(visit, study):
    "Catches images that are answered before they were seen."
    page = visit(study[0], **PHONE)
    start(page, "a")
    page.wait_for_timeout(220)
    page.evaluate("for (let i = 0; i < 3; i++) document.getElementById('yes').click()")
    assert page.inner_text("#count") == "2 / 12"
    page.wait_for_timeout(220)
    page.keyboard.down("ArrowLeft")
    for _ in range(4):
        page.wait_for_timeout(120)
        page.keyboard.down("ArrowLeft")      # repeats
    page.keyboard.up("ArrowLeft")
    assert page.inner_text("#count") == "3 / 12"
    page.keyboard.press("Control+ArrowLeft")
    assert page.inner_text("#count") == "3 / 12"

def test_pause_and_another_reader(visit, study, tmp_path):
    "Catches readers of one machine who overwrite each other, and a pause that loses the place."
    page_file, key = study
    page = visit(page_file)
    start(page, "Ada")
    for _ in range(3): respond(page, "yes", "arrow")
    page.click("#hold")
    assert page.inner_text("#done") == "3 of 12 answered"
    assert len(read_answers(saved(page, "#csv", tmp_path), key, complete=False)) == 3
    page.click("#other")
    start(page, "Bob")
    assert page.inner_text("#count") == "1 / 12"
    respond(page, "no", "letter")
    second = page.context.new_page()                                        # a new tab goes on with the last reader
    second.goto(page_file.as_uri())
    assert second.inner_text("#count") == "2 / 12"
    second.click("#hold")
    second.click("#other")
    start(second, "Ada")
    assert second.inner_text("#count") == "4 / 12"
    second.keyboard.press("Backspace")
    assert second.inner_text("#count") == "3 / 12"
    second.click("#next")
    assert second.inner_text("#count") == "4 / 12" and second.is_disabled("#next")

def test_browser_that_keeps_nothing(browser, study, tmp_path):
    "Catches a page that breaks where storage is forbidden, or does not say so."
    context = browser.new_context()
    page = context.new_page()
    forbidden = "{get() { throw new DOMException('no', 'SecurityError') }}"
    page.add_init_script(f"Object.defineProperty(window, 'localStorage', {forbidden})")
    page.goto(study[0].as_uri())
    start(page, "a")
    assert page.is_visible("#warning")
    for _ in range(12): respond(page, "yes", "arrow")
    assert len(read_answers(saved(page, "#csv", tmp_path), study[1])) == 12
    context.close()

@pytest.mark.parametrize("width, height", [(320, 568), (390, 844), (844, 390), (1280, 800)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout(visit, study, width, height, scheme):
    "Catches buttons below the edge of a phone, too small for a thumb, and an image that nobody can see."
    page = visit(study[0], viewport=dict(width=width, height=height), color_scheme=scheme)
    start(page, "a")
    for button in ("#yes", "#no", "#back"):
        box = page.locator(button).bounding_box()
        assert min(box["height"], box["width"]) >= 44
        assert box["y"] + box["height"] <= height and box["x"] + box["width"] <= width
    box = page.locator("#frame").bounding_box()
    assert min(box["width"], box["height"]) >= 260
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("(i => i.complete && i.naturalWidth)(document.getElementById('image'))") == 16

def test_labels_for_screen_readers(visit, study):
    "Catches a field or an image without a name, and an alternative text that gives the answer."
    page = visit(study[0])
    assert page.get_by_label("Your name or code").is_visible()
    start(page, "a")
    assert page.get_by_role("img", name="the image to judge").count() == 1
    assert page.get_by_role("button", name="Real", exact=True).is_visible()
    assert page.get_by_role("progressbar", name="answered images").count() == 1
    assert page.evaluate("document.activeElement.id") == "question"
