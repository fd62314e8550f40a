import Foundation
import MViTCoreML
import MViTKit
import Testing

@testable import MViTDemo

/// What only Core ML can tell, on a device or in the simulator.
///
/// The golden files are those in the app's bundle: for every model its picture, the fingerprint of the
/// pixels that go in, and what Python answered.
@Suite("Core ML answers as Python does")
struct DeviceTests {
  private static let entries = ModelList(bundled: Bundle.main.resourceURL).entries
    .filter { $0.selfTest != nil }

  @Test("there are models with self-tests in the bundle: make swift-models puts them there")
  func bundle() {
    #expect(!Self.entries.isEmpty)
  }

  @Test("with every way to compute", arguments: entries, ComputeUnits.allCases)
  func selfTest(entry: ModelEntry, units: ComputeUnits) async throws {
    let test = try SelfTest(contentsOf: try #require(entry.selfTest))
    let (_, report) = try #require(try await test.run(model: entry.url, units: [units]).first)
    for check in report.checks { #expect(check.agrees, "\(check.name): \(check.detail)") }
  }

  @Test("frames in, answers out", arguments: entries)
  func frames(entry: ModelEntry) async throws {
    let file = try #require(entry.selfTest)
    let photo = try Photo(contentsOf: SelfTest(contentsOf: file).picture).decoded()
    let model = try await ModelStore.shared.model(at: entry.url)
    let expected = try await model.answer(photo).answer
    let frames = AsyncStream<Photo> { continuation in
      continuation.yield(photo)
      continuation.finish()
    }
    var answers: [ImageAnswer] = []
    for try await answer in model.answers(to: frames) {
      answers.append(try answer.result.get().answer)
    }
    #expect(answers == [expected])
  }
}
