#if canImport(CoreML)
import Foundation
import MViTKit

/// Runs the picture shipped beside a model and compares with what Python answered.
public struct SelfTest: Sendable {
  /// What Python answered.
  public let expectation: SelfTestExpectation
  /// The picture, lossless.
  public let picture: URL

  /// Reads `<model>.selftest.json`.
  ///
  /// - Throws: `SelfTestError` for a file that cannot be used or a picture that is not beside it.
  public init(contentsOf url: URL) throws {
    expectation = try SelfTestExpectation(contentsOf: url)
    picture = url.deletingLastPathComponent().appendingPathComponent(expectation.image)
    guard FileManager.default.fileExists(atPath: picture.path) else {
      throw SelfTestError(
        file: url.lastPathComponent, problem: "\(expectation.image) does not lie beside it")
    }
  }

  /// Compares this device with Python: package, pixels and answer.
  ///
  /// - Throws: whatever keeps the model from answering at all.
  public func run(on model: ImageModel) async throws -> SelfTestReport {
    let information = model.information
    let photo = try Photo(contentsOf: picture)
    let fitted = try photo.fitted(information.preprocessing)
    var checks = [
      expectation.check(programSHA256: information.programSHA256),
      expectation.check(input: fitted.image),
    ]
    let exact = try await model.answer(photo, top: .max)
    checks.append(check(exact.answer, name: "Answer"))
    var notes: [SelfTestCheck] = []
    if fitted.placement.visionRegion != nil {
      let fast = try await model.answer(photo, top: .max, path: .fast)
      notes.append(check(fast.answer, name: "Answer through Vision"))
    }
    return SelfTestReport(model: information.name, checks: checks, notes: notes)
  }

  /// Compares every way in which this device may compute with Python.
  ///
  /// - Parameters:
  ///   - model: an `.mlpackage` or `.mlmodelc`.
  ///   - units: which ways.
  ///   - store: where models are loaded.
  /// - Returns: a report for each, in order.
  /// - Throws: whatever keeps the model from answering at all.
  public func run(
    model: URL, units: [ComputeUnits] = ComputeUnits.allCases, store: ModelStore = .shared
  ) async throws -> [(units: ComputeUnits, report: SelfTestReport)] {
    var reports: [(units: ComputeUnits, report: SelfTestReport)] = []
    for units in units {
      let loaded = try await store.model(
        at: model, units: units, function: .named(expectation.function))
      reports.append((units, try await run(on: loaded)))
    }
    return reports
  }

  private func check(_ answer: ImageAnswer, name: String) -> SelfTestCheck {
    switch answer {
    case .classification(let scores): expectation.check(scores: scores, name: name)
    case .segmentation(let map): expectation.check(map: map, name: name)
    case .values, .embedding:
      SelfTestCheck(
        name: name, agrees: false, detail: "self-tests are of classes and of class maps")
    }
  }
}
#endif
