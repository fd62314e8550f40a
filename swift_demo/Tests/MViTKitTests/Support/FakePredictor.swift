import Foundation
import MViTKit

/// Stands in for a model: frames are numbers, and the likeliest class's index is the frame.
///
/// An answer waits until the test lets it go, so that the order of events is the test's.
actor FakePredictor: ImagePredictor {
  nonisolated let information: ModelInformation
  private var gate: CheckedContinuation<Void, Never>?
  private var begun: [Int] = []
  private var watchers: [(count: Int, resume: CheckedContinuation<Void, Never>)] = []
  private let failing: Set<Int>
  private var isGated: Bool

  struct Failure: Error, Equatable {}

  init(failing: Set<Int> = [], isGated: Bool = true) throws {
    self.failing = failing
    self.isGated = isGated
    information = try ModelInformation.fake()
  }

  func answer(_ frame: Int, top: Int, path: InputPath) async throws -> ImagePrediction {
    begun.append(frame)
    watchers.removeAll { watcher in
      guard watcher.count <= begun.count else { return false }
      watcher.resume.resume()
      return true
    }
    if isGated { await withCheckedContinuation { gate = $0 } }
    if failing.contains(frame) { throw Failure() }
    return ImagePrediction(
      answer: .classification([ClassScore(index: frame, label: "\(frame)", score: 1)]),
      placement: try information.preprocessing.placement(of: PixelSize(width: 8, height: 8)),
      timing: PredictionTiming(resizing: 0, prediction: 0, path: path))
  }

  /// Waits until so many answers have begun, and says about which frames.
  func begun(_ count: Int) async -> [Int] {
    if begun.count < count {
      await withCheckedContinuation { watchers.append((count, $0)) }
    }
    return begun
  }

  /// Lets the answer go that is being worked on, and all that follow.
  func open() {
    isGated = false
    release()
  }

  /// Lets the answer go that is being worked on.
  func release() {
    gate?.resume()
    gate = nil
  }
}

extension ModelInformation {
  /// What a small classifier would say about itself.
  static func fake() throws -> ModelInformation {
    let metadata = try PackageMetadata(userDefined: [
      "mvit_coreml.task": "image-classification", "mvit_coreml.output": "probabilities",
      "mvit_coreml.preprocessing": """
      {"main": {"version": 1, "width": 8, "height": 8, "fit": "stretch", "resample": "bilinear",
       "resize": null, "crop": null, "color_order": "RGB",
       "baked": {"scale": 0.003921, "bias": [0, 0, 0]}}}
      """,
    ])
    return ModelInformation(
      name: "Fake", compiledURL: URL(fileURLWithPath: "/fake.mlmodelc"), units: .cpuOnly,
      metadata: metadata, function: metadata.functions[0], labels: ["a", "b"])
  }
}

/// Frames that a test sends; it can wait until they were taken.
final class FrameSource: AsyncSequence, Sendable {
  typealias Element = Int

  private let stream: AsyncThrowingStream<Int, any Error>
  private let continuation: AsyncThrowingStream<Int, any Error>.Continuation
  private let asked = Watched()
  private let ends = Watched()

  init() {
    (stream, continuation) = AsyncThrowingStream.makeStream(
      of: Int.self, throwing: (any Error).self)
    continuation.onTermination = { [ends] _ in Task { await ends.increment() } }
  }

  func send(_ frame: Int) { continuation.yield(frame) }
  func finish(throwing error: (any Error)? = nil) { continuation.finish(throwing: error) }
  /// Waits until a frame has been asked for so often: one time more than frames were taken.
  func asked(_ count: Int) async { await asked.reach(count) }
  /// Waits until nobody reads the frames any more.
  func ended() async { await ends.reach(1) }

  func makeAsyncIterator() -> Iterator {
    Iterator(stream: stream.makeAsyncIterator(), asked: asked)
  }

  struct Iterator: AsyncIteratorProtocol {
    var stream: AsyncThrowingStream<Int, any Error>.Iterator
    let asked: Watched

    mutating func next() async throws -> Int? {
      await asked.increment()
      return try await stream.next()
    }
  }
}

/// A count that can be waited for.
actor Watched {
  private var count = 0
  private var waiting: [(count: Int, resume: CheckedContinuation<Void, Never>)] = []

  func increment() {
    count += 1
    waiting.removeAll { waiter in
      guard waiter.count <= count else { return false }
      waiter.resume.resume()
      return true
    }
  }

  func reach(_ wanted: Int) async {
    if count < wanted { await withCheckedContinuation { waiting.append((wanted, $0)) } }
  }
}
