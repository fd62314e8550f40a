"""The Xcode project holds together; read by a parser of its own, as Xcode is not at hand."""

from __future__ import annotations

import plistlib
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from openstep import read_openstep

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
    (target,) = project.of_kind("PBXNativeTarget").values()
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
    assert {path.name for path in files.values()} == {"MViTDemo", "Info.plist", "Signing.xcconfig"}
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
        assert targets[reference.attrib["BlueprintIdentifier"]]["name"] == "MViTDemo"
    assert scheme.find("LaunchAction/BuildableProductRunnable") is not None


def test_app_names_no_class_of_any_model() -> None:
    code = "\n".join(path.read_text() for path in sorted((DEMO / "MViTDemo").rglob("*.swift")))
    for label in ("aeroplane", "red digit", "blue five", "tench"):
        assert label not in code
