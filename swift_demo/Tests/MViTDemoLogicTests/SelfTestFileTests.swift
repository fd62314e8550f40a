import Foundation
import MViTKit
import Testing

@testable import MViTDemoLogic

/// The files that Python writes for the app, read and checked as far as Core ML is not needed.
@Suite("The self-test's files as Python writes them")
struct SelfTestFileTests {
  private static let folder = ProcessInfo.processInfo.environment["MVIT_SELF_TESTS"]

  @Test(
    "the self-test file of every package goes with its package and its picture",
    .enabled(if: folder != nil, "MVIT_SELF_TESTS names no folder"))
  func files() throws {
    let list = ModelList(bundled: URL(fileURLWithPath: try #require(Self.folder)))
    #expect(!list.entries.isEmpty)
    for entry in list.entries {
      let file = try #require(entry.selfTest)
      let expectation = try SelfTestExpectation(contentsOf: file)
      #expect(expectation.model == entry.name)
      let userDefined = try PackageDescription(package: entry.url).userDefined
      #expect(
        expectation.check(programSHA256: userDefined["mvit_coreml.program_sha256"]).agrees)
      let metadata = try PackageMetadata(userDefined: userDefined)
      let function = try metadata.function(.named(expectation.function))
      let picture = file.deletingLastPathComponent()
        .appendingPathComponent(expectation.image)
        .deletingPathExtension().appendingPathExtension("ppm")
      let image = try PixelImage(netpbm: Data(contentsOf: picture))
      let fitted = try Preprocessor(function.preprocessing).run(image).image
      let check = expectation.check(input: fitted)
      #expect(check.agrees, "\(entry.name): \(check.detail)")
      #expect((metadata.task == .semanticSegmentation) == (expectation.map != nil))
    }
  }
}
