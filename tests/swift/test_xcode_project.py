"""The Xcode project holds together; read by a parser of its own, as Xcode is not at hand."""

from __future__ import annotations

import json
import plistlib
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from openstep import read_openstep
from PIL import Image

pytestmark = pytest.mark.fast

DEMO = Path(__file__).resolve().parents[2] / "swift_demo"
PROJECT = DEMO / "MViTDemo.xcodeproj"


class Project:
    """A project's objects by identifier."""

    def __init__(self, text: str) -> None:
        self.document = read_openstep(text)
        self.objects: dict[str, dict[str, Any]] = self.document["objects"]
        self.root = self.objects[self.document["rootObject"]]

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        return {key: value for key, value in self.objects.items() if value["isa"] == kind}

    def settings(self, configurations: str) -> dict[str, dict[str, str]]:
        """Build settings by configuration name."""
        found = {}
        for key in self.objects[configurations]["buildConfigurations"]:
            found[self.objects[key]["name"]] = self.objects[key]["buildSettings"]
        return found

    def files(self) -> dict[str, Path]:
        """Every file and folder that the groups name, by identifier."""
        found: dict[str, Path] = {}

        def walk(key: str, folder: Path) -> None:
            value = self.objects[key]
            if value.get("sourceTree") != "<group>":
                return
            place = folder / value.get("path", "")
            if value["isa"] != "PBXGroup":
                found[key] = place
            for child in value.get("children", []):
                walk(child, place)

        walk(self.root["mainGroup"], DEMO)
        return found


@pytest.fixture(scope="module")
def project() -> Project:
    return Project((PROJECT / "project.pbxproj").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def app(project: Project) -> dict[str, Any]:
    kind = "com.apple.product-type.application"
    targets = project.of_kind("PBXNativeTarget").values()
    (target,) = (target for target in targets if target["productType"] == kind)
    return target


def test_parser_reads_what_xcode_writes_and_refuses_what_is_broken() -> None:
    text = '// !$*UTF8*$!\n{ a = (1, "b \\"c\\"", ); /* note */ d = { e = $(F); }; }'
    with pytest.raises(ValueError, match="expected"):
        read_openstep(text)
    good = text.replace("$(F)", '"$(F)"')
    assert read_openstep(good) == {"a": ["1", 'b "c"'], "d": {"e": "$(F)"}}
    for broken in ("{ a = 1 }", "{ a = 1; a = 2; }", "( 1 2 )", "{ a = ", "{} x"):
        with pytest.raises(ValueError, match=r"expected|twice|early|after"):
            read_openstep(broken)


def test_format_is_that_of_xcode_16_with_synchronized_folders(project: Project) -> None:
    assert project.document["objectVersion"] == "77"
    assert project.root["preferredProjectObjectVersion"] == "77"


def test_every_identifier_that_is_used_exists(project: Project) -> None:
    identifier = re.compile(r"[0-9A-F]{24}")
    used: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif identifier.fullmatch(value):
            used.add(value)

    walk(list(project.objects.values()))
    assert used <= set(project.objects)
    unused = set(project.objects) - used - {project.document["rootObject"]}
    assert not unused


def test_every_file_that_is_named_exists(project: Project) -> None:
    files = project.files()
    names = {path.name for path in files.values()}
    assert names == {"MViTDemo", "MViTDemoTests", "Info.plist", "Signing.xcconfig"}
    assert all(path.exists() for path in files.values())


def test_app_compiles_its_folder_and_nothing_else(project: Project, app: dict[str, Any]) -> None:
    (folder,) = (project.files()[key] for key in app["fileSystemSynchronizedGroups"])
    assert folder == DEMO / "MViTDemo"
    assert (folder / "MViTDemoApp.swift").is_file()
    phases = [project.objects[key] for key in app["buildPhases"]]
    assert [phase["isa"] for phase in phases] == [
        "PBXSourcesBuildPhase",
        "PBXFrameworksBuildPhase",
        "PBXResourcesBuildPhase",
    ]
    # The synchronized folder brings sources and resources; listing files would add them twice.
    assert phases[0]["files"] == phases[2]["files"] == []


def test_only_the_folders_readme_is_kept_out_of_the_app(project: Project) -> None:
    (exceptions,) = project.of_kind("PBXFileSystemSynchronizedBuildFileExceptionSet").values()
    assert exceptions["membershipExceptions"] == ["Models/README.md"]
    assert (DEMO / "MViTDemo" / "Models" / "README.md").is_file()


def test_app_links_the_libraries_of_the_package_beside_it(
    project: Project, app: dict[str, Any]
) -> None:
    (package,) = project.of_kind("XCLocalSwiftPackageReference").values()
    manifest = (PROJECT.parent / package["relativePath"] / "Package.swift").read_text()
    products = {
        key: value["productName"]
        for key, value in project.of_kind("XCSwiftPackageProductDependency").items()
    }
    assert sorted(products.values()) == ["MViTCoreML", "MViTKit"]
    assert set(app["packageProductDependencies"]) == set(products)
    frameworks = next(
        project.objects[key]
        for key in app["buildPhases"]
        if project.objects[key]["isa"] == "PBXFrameworksBuildPhase"
    )
    assert {project.objects[key]["productRef"] for key in frameworks["files"]} == set(products)
    for product in products.values():
        assert f'.library(name: "{product}"' in manifest


@pytest.mark.parametrize("configuration", ["Debug", "Release"])
def test_build_settings_are_those_of_a_universal_ios_17_app(
    project: Project, app: dict[str, Any], configuration: str
) -> None:
    general = project.settings(project.root["buildConfigurationList"])[configuration]
    own = project.settings(app["buildConfigurationList"])[configuration]
    assert general["IPHONEOS_DEPLOYMENT_TARGET"] == "17.0"
    assert general["SWIFT_VERSION"] == "6.0"
    assert own["TARGETED_DEVICE_FAMILY"] == "1,2"
    assert own["INFOPLIST_KEY_NSCameraUsageDescription"]
    # Generated classes are of no use: the app reads every model through its metadata.
    assert own["COREML_CODEGEN_LANGUAGE"] == "None"
    info = plistlib.loads((DEMO / own["INFOPLIST_FILE"]).read_bytes())
    assert info["UIFileSharingEnabled"] is True


def test_signing_comes_from_a_file_and_names_no_team(project: Project, app: dict[str, Any]) -> None:
    files = project.files()
    for key in project.objects[app["buildConfigurationList"]]["buildConfigurations"]:
        base = project.objects[key]["baseConfigurationReference"]
        assert files[base] == DEMO / "Config" / "Signing.xcconfig"
    lines = (DEMO / "Config" / "Signing.xcconfig").read_text().splitlines()
    stated = [line for line in lines if not line.startswith("//")]
    for text in [*stated, (PROJECT / "project.pbxproj").read_text()]:
        assert "DEVELOPMENT_TEAM" not in text
        assert "DevelopmentTeam" not in text


def test_shared_scheme_runs_the_app(project: Project) -> None:
    scheme = ElementTree.parse(PROJECT / "xcshareddata" / "xcschemes" / "MViTDemo.xcscheme")
    references = scheme.findall(".//BuildableReference")
    targets = project.of_kind("PBXNativeTarget")
    assert references
    for reference in references:
        named = targets[reference.attrib["BlueprintIdentifier"]]["name"]
        assert named == reference.attrib["BlueprintName"]
    assert scheme.find("LaunchAction/BuildableProductRunnable") is not None
    # Unoptimised resizing is many times slower: who just presses Run shall not see that.
    launch = scheme.find("LaunchAction")
    assert launch is not None
    assert launch.attrib["buildConfiguration"] == "Release"
    tested = scheme.find("TestAction/Testables/TestableReference/BuildableReference")
    assert tested is not None
    assert tested.attrib["BlueprintName"] == "MViTDemoTests"


def test_tests_run_inside_the_app_where_the_models_are(
    project: Project, app: dict[str, Any]
) -> None:
    kind = "com.apple.product-type.bundle.unit-test"
    (tests,) = (
        target
        for target in project.of_kind("PBXNativeTarget").values()
        if target["productType"] == kind
    )
    (folder,) = (project.files()[key] for key in tests["fileSystemSynchronizedGroups"])
    assert list(folder.glob("*.swift"))
    (dependency,) = (project.objects[key] for key in tests["dependencies"])
    assert project.objects[dependency["target"]] is app
    for settings in project.settings(tests["buildConfigurationList"]).values():
        assert settings["TEST_HOST"].endswith("/MViTDemo.app/MViTDemo")


def test_pictures_of_the_self_tests_keep_their_bytes(project: Project, app: dict[str, Any]) -> None:
    for settings in project.settings(app["buildConfigurationList"]).values():
        assert settings["COMPRESS_PNG_FILES"] == "NO"
        assert settings["STRIP_PNG_TEXT"] == "NO"


def test_privacy_manifest_has_nothing_to_declare() -> None:
    """An app that calls an API of these kinds has to give Apple a reason for it."""
    manifest = plistlib.loads((DEMO / "MViTDemo" / "PrivacyInfo.xcprivacy").read_bytes())
    assert manifest["NSPrivacyTracking"] is False
    assert manifest["NSPrivacyAccessedAPITypes"] == []
    kinds = re.compile(
        r"systemUptime|mach_absolute_time|UserDefaults|AppStorage|modificationDate|creationDate"
        r"|contentModificationDate|volumeAvailableCapacity|systemFreeSize|activeInputModes"
    )
    for folder in ("MViTDemo", "Sources/MViTKit", "Sources/MViTCoreML"):
        for path in (DEMO / folder).rglob("*.swift"):
            assert kinds.search(path.read_text(encoding="utf-8")) is None, path


def test_app_asks_files_for_the_type_that_it_declares(app: dict[str, Any]) -> None:
    info = plistlib.loads((DEMO / "Config" / "Info.plist").read_bytes())
    (declared,) = info["UTImportedTypeDeclarations"]
    code = (DEMO / "MViTDemo" / "Logic" / "ModelFileType.swift").read_text(encoding="utf-8")
    assert f'"{declared["UTTypeIdentifier"]}"' in code
    assert declared["UTTypeConformsTo"] == ["com.apple.package"]


def test_icon_is_there(project: Project, app: dict[str, Any]) -> None:
    for settings in project.settings(app["buildConfigurationList"]).values():
        icon = settings["ASSETCATALOG_COMPILER_APPICON_NAME"]
        folder = DEMO / "MViTDemo" / "Assets.xcassets" / f"{icon}.appiconset"
        (image,) = json.loads((folder / "Contents.json").read_text())["images"]
        with Image.open(folder / image["filename"]) as opened:
            assert opened.size == (1024, 1024)
            assert opened.mode == "RGB"


LITERAL = r'\(\s*"((?:[^"\\]|\\.)*)"'
SHOWING = (
    "localized|Text|Label|Button|Section|Picker|ProgressView|navigationTitle"
    "|accessibilityLabel|accessibilityHint"
)


def test_every_word_of_the_app_is_in_its_string_catalog() -> None:
    catalog = json.loads((DEMO / "MViTDemo" / "Localizable.xcstrings").read_text(encoding="utf-8"))
    used: set[str] = set()
    for path in (DEMO / "MViTDemo").rglob("*.swift"):
        if "Previews" not in path.parts:
            code = path.read_text(encoding="utf-8")
            used |= set(re.findall(rf"\b(?:{SHOWING}){LITERAL}", code))
    assert set(catalog["strings"]) == used
    # A value in a literal would be another key for every value.
    assert not [key for key in used if "\\(" in key]


def test_library_has_no_words_of_the_app() -> None:
    assert not list((DEMO / "Sources" / "MViTKit").glob("App/*"))
    for path in (DEMO / "Sources").rglob("*.swift"):
        assert "localized(" not in path.read_text(encoding="utf-8"), path


def test_app_names_no_class_of_any_model() -> None:
    code = "\n".join(path.read_text() for path in sorted((DEMO / "MViTDemo").rglob("*.swift")))
    for label in ("aeroplane", "red digit", "blue five", "tench"):
        assert label not in code
