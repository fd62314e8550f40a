#if canImport(CoreML)
import Foundation
import MViTCoreML
import MViTKit

private let modelOptions: Set<String> = ["--units", "--function"]

/// Loads the model that a command names, as its options say.
private func loadModel(_ path: String, _ arguments: Arguments) async throws -> ImageModel {
  let url = URL(fileURLWithPath: path)
  guard FileManager.default.fileExists(atPath: url.path) else {
    throw UsageError(description: "\(path): no such model")
  }
  return try await ModelStore.shared.model(
    at: url, units: try arguments.choice("--units", ComputeUnits.self) ?? .standard,
    function: arguments.text("--function").map { .named($0) })
}

/// `mvit classify`: says what is on a picture.
struct ClassifyCommand: Command {
  static let name = "classify"
  static let usage = ModelCommandUsage.classify

  static func run(_ words: ArraySlice<String>) async throws {
    let arguments = try Arguments(words, known: modelOptions.union(["--top", "--path"]))
    let paths = try arguments.require("MODEL", "IMAGE")
    let top = try arguments.integer("--top", in: 1...100_000) ?? 5
    let path = try arguments.choice("--path", InputPath.self) ?? .exact
    let model = try await loadModel(paths[0], arguments)
    let photo = try Photo(contentsOf: URL(fileURLWithPath: paths[1]))
    switch try await model.answer(photo, top: top, path: path).answer {
    case .classification(let scores):
      for score in scores { print("\(FigureFormat.percent(score.score))  \(score.label)") }
    case .values(let values):
      for value in values { print("\(FigureFormat.fixed(value.score, digits: 4))  \(value.label)") }
    case .embedding(let vector): print(vector.map(\.description).joined(separator: " "))
    case .segmentation: throw ModelError.wrongTask(asked: "classification")
    }
  }
}

/// `mvit segment`: says which classes cover how much of a picture, and paints them.
struct SegmentCommand: Command {
  static let name = "segment"
  static let usage = ModelCommandUsage.segment

  static func run(_ words: ArraySlice<String>) async throws {
    let arguments = try Arguments(words, known: modelOptions.union(["-o", "--path"]))
    let paths = try arguments.require("MODEL", "IMAGE")
    let path = try arguments.choice("--path", InputPath.self) ?? .exact
    let model = try await loadModel(paths[0], arguments)
    let photo = try Photo(contentsOf: URL(fileURLWithPath: paths[1]))
    let (inputMap, placement) = try await model.segment(photo, path: path)
    let map = inputMap.unfitted(placement)
    for share in map.shares() {
      let label = model.information.label(of: share.classIndex)
      print("\(FigureFormat.percent(share.fraction))  \(share.classIndex) \(label)")
    }
    if let output = arguments.text("-o") {
      try writePPM(model.information.palette.overlay(map), to: output)
    }
  }
}

/// `mvit bench`: times a model.
struct BenchCommand: Command {
  static let name = "bench"
  static let usage = ModelCommandUsage.bench

  static func run(_ words: ArraySlice<String>) async throws {
    let arguments = try Arguments(words, known: modelOptions.union(["--runs", "--path"]))
    let paths = try arguments.require("MODEL", "IMAGE")
    let runs = try arguments.integer("--runs", in: 1...100_000) ?? 100
    let path = try arguments.choice("--path", InputPath.self) ?? .exact
    let model = try await loadModel(paths[0], arguments)
    // Decoded once: the runs time resizing and predicting.
    let photo = try Photo(contentsOf: URL(fileURLWithPath: paths[1])).decoded()
    try await model.warmUp()
    var prediction = LatencyRing(capacity: runs)
    var resizing = LatencyRing(capacity: runs)
    let clock = ContinuousClock()
    let start = clock.now
    for _ in 0..<runs {
      let timing = try await model.answer(photo, path: path).timing
      let finished = (clock.now - start) / .seconds(1)
      prediction.record(seconds: timing.prediction, finishedAt: finished)
      resizing.record(seconds: timing.resizing, finishedAt: finished)
    }
    for (name, ring) in [("prediction", prediction), ("resize", resizing)] {
      let (median, p95) = (ring.median, ring.p95)
      print(
        "\(name)  median \(FigureFormat.milliseconds(median)), "
          + "95th percentile \(FigureFormat.milliseconds(p95))")
    }
    print("together  \(FigureFormat.framesPerSecond(prediction.framesPerSecond))")
  }
}

/// `mvit plan`: says which part of the chip Core ML plans to use.
struct PlanCommand: Command {
  static let name = "plan"
  static let usage = ModelCommandUsage.plan

  static func run(_ words: ArraySlice<String>) async throws {
    let arguments = try Arguments(words, known: modelOptions)
    let model = try await loadModel(try arguments.require("MODEL")[0], arguments)
    guard #available(macOS 14.4, iOS 17.4, tvOS 17.4, visionOS 1.1, *) else {
      throw UsageError(description: "compute plans need macOS 14.4 or newer")
    }
    let plan = try await model.computePlan()
    for share in plan.shares {
      print(
        "\(share.device.rawValue): \(FigureFormat.percent(share.work)) of the work, "
          + "\(share.operations) operations")
    }
    for (name, count) in plan.elsewhere.sorted(by: { $0.key < $1.key }) {
      print("elsewhere: \(count) x \(name)")
    }
  }
}
#endif
