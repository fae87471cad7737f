"""Which names of folders are those of classes, and hardly of persons."""

import re
from collections.abc import Collection

from hica_client.intake.writings import WORD, without_format, writings

KNOWN = frozenset(
    """
    normal normals abnormal healthy control controls benign malignant malignancy cancer cancerous
    carcinoma tumor tumour tumors tumours tumoral neoplasm neoplastic adenoma adenocarcinoma
    sarcoma lymphoma melanoma glioma meningioma pituitary glioblastoma metastasis metastases
    metastatic mass masses lesion lesions nodule nodules nodular cyst cysts cystic polyp polyps
    suspicious positive negative pos neg disease diseased sick pathologic pathological pathology
    finding findings clear other others unknown unlabelled unlabeled indeterminate
    pneumonia bacterial viral fungal virus bacteria covid covid19 sars tuberculosis tb influenza
    atelectasis cardiomegaly effusion effusions infiltration infiltrate pneumothorax consolidation
    edema oedema emphysema fibrosis pleural thickening hernia opacity opacities fracture fractures
    fractured broken intact haemorrhage hemorrhage bleeding stroke ischemia ischaemia ischemic
    infarct aneurysm stenosis embolism calcification calcifications calcified microcalcification
    microcalcifications asymmetry distortion spiculated smooth reticular lobulated circumscribed
    solid necrosis necrotic inflammation inflammatory infection infected ulcer ulcerative colitis
    esophagitis oesophagitis gastritis hepatitis cirrhosis steatosis fatty calculi
    arthritis osteoarthritis osteoporosis osteopenia scoliosis
    nevus naevus keratosis dermatofibroma vascular squamous basal akiec bcc bkl df mel nv vasc scc
    retinopathy diabetic proliferative glaucoma cataract drusen dme cnv amd dr npdr pdr macular
    dementia demented nondemented alzheimer epilepsy sclerosis
    adipose mucus muscle stroma debris background epithelium lymphocytes tissue
    grade class stage type category birads rads kl gleason density
    no non not none without with and or of the very mild moderate severe acute chronic
    primary secondary simple complex minimal
    chest breast lung brain liver kidney skin retina bone knee hip spine abdomen pelvis thorax
    cxr ct mri mr us xray
    gutartig bosartig boesartig gesund krank auffallig unauffallig befund ohne
    benins malins maligne benigne
    benigno benigna maligno maligna normale normali benigni maligni goedaardig
    kwaadaardig gezond
    i ii iii iv
    """.split()  # noqa: SIM905
)
"""Words of classes, as `writings` has them. No surname that is at all common is among them."""
SEVERAL = re.compile(r"[,;^=]|\d{4}")
"""As names of persons, dates and numbers of patients are written."""
CHAINED = re.compile(r"(?<=[^\W\d_])(?<=[a-z])(?=[A-Z])")
"""Where a word begins inside a word: `JohnSmith`."""


def are_classes(names: Collection[str], of_study: Collection[str] | None) -> bool:
    """Whether all of some folders' names are classes: when in doubt, they are not.

    `of_study` are the classes of the site's study; None: there is none, and the words must be
    known, or the names count: 0, 1, 2 or a, b, c.
    """
    if any(map(_may_be_a_person, names)):
        return False
    if of_study is not None:
        return {_same(name) for name in names} <= {_same(name) for name in of_study}
    return _count(names) or all(map(_is_known, names))


def _words(name: str) -> list[str]:
    return CHAINED.sub(" ", " ".join(WORD.findall(without_format(name)))).split()


def _may_be_a_person(name: str) -> bool:
    """Whether two words begin with a capital, or a sign or a number tells of a person."""
    capitals = [word for word in _words(name) if word[0].isupper()]
    return bool(SEVERAL.search(name)) or len(capitals) > 1


def _same(name: str) -> str:
    return "".join(filter(str.isalnum, without_format(name).casefold()))


def _count(names: Collection[str]) -> bool:
    """Whether names are the first numbers from 0 on, or the first letters."""
    ordered = sorted(names)
    return len(ordered) <= 10 and any(
        ordered == [chr(ord(first) + number) for number in range(len(ordered))] for first in "0a"
    )


def _is_known(name: str) -> bool:
    """Whether all words are known, and one of them holds a letter."""
    words = _words(name)
    rest = [word for word in words if not re.fullmatch(r"\d{1,2}[a-d]?|[a-d]", word)]
    return bool(rest) and all(
        writings(word) & KNOWN or writings(re.sub(r"\d{1,2}$", "", word)) & KNOWN for word in rest
    )
