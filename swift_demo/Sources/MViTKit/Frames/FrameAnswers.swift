import Foundation

/// What became of one frame.
public struct FrameAnswer: Sendable {
  /// The answer, or why there is none; one failed frame does not end the others.
  public let result: Result<ImagePrediction, any Error>
  /// How many frames were passed over since the answer before, because a newer one had come.
  public let dropped: Int

  /// Puts an answer together.
  public init(result: Result<ImagePrediction, any Error>, dropped: Int) {
    self.result = result
    self.dropped = dropped
  }
}

extension ImagePredictor {
  /// Answers about a stream of frames, such as a camera's; of those that wait, the newest is next.
  ///
  /// Frames are taken from the source as fast as they come and at most one is kept, so neither a slow
  /// model nor a slow reader of the answers lets frames pile up. The source is read from the first
  /// answer that is asked for until the sequence is dropped or its task is cancelled.
  ///
  /// ```swift
  /// for try await answer in model.answers(to: frames) {
  ///   show(try? answer.result.get())
  /// }
  /// ```
  ///
  /// - Parameters:
  ///   - frames: where they come from; an error of theirs ends the answers.
  ///   - top: how many classes to list, of a classifier.
  ///   - path: how to resize.
  ///   - pacing: how many frames a second to answer at most.
  ///   - thermalLevel: how hot the device is, asked before every frame.
  public func answers<Frames: AsyncSequence & Sendable>(
    to frames: Frames, top: Int = 5, path: InputPath = .exact, pacing: FramePacing = FramePacing(),
    thermalLevel: @escaping @Sendable () -> ThermalLevel = { .current }
  ) -> FrameAnswers<Self, Frames> where Frames.Element == Frame {
    FrameAnswers(
      predictor: self, frames: frames, top: top, path: path,
      interval: { pacing.interval(at: thermalLevel()) })
  }
}

/// The answers to a stream of frames; see ``ImagePredictor/answers(to:top:path:pacing:thermalLevel:)``.
public struct FrameAnswers<Predictor: ImagePredictor, Frames: AsyncSequence & Sendable>:
  AsyncSequence, Sendable
where Frames.Element == Predictor.Frame {
  /// What the sequence consists of.
  public typealias Element = FrameAnswer

  let predictor: Predictor
  let frames: Frames
  let top: Int
  let path: InputPath
  let interval: @Sendable () -> Duration

  /// Starts to read the frames.
  public func makeAsyncIterator() -> Iterator { Iterator(self) }

  /// Answers one frame after the other.
  public struct Iterator: AsyncIteratorProtocol {
    private let answers: FrameAnswers
    private let pump: FramePump<Frames>
    private var waiting: AsyncThrowingStream<Predictor.Frame, any Error>.Iterator
    private var started: ContinuousClock.Instant?

    init(_ answers: FrameAnswers) {
      self.answers = answers
      pump = FramePump(answers.frames)
      waiting = pump.newest.makeAsyncIterator()
    }

    /// Waits for a frame and answers about it.
    ///
    /// - Returns: `nil` where the frames are over or the task is cancelled.
    /// - Throws: what the source of the frames threw.
    public mutating func next() async throws -> FrameAnswer? {
      let clock = ContinuousClock()
      let interval = answers.interval()
      // Slept before a frame is taken, so that the one taken is the newest.
      if let started, interval > .zero { try? await clock.sleep(until: started + interval) }
      guard !Task.isCancelled, let frame = try await waiting.next(), !Task.isCancelled else {
        return nil
      }
      started = clock.now
      let result: Result<ImagePrediction, any Error>
      do {
        result = .success(
          try await answers.predictor.answer(frame, top: answers.top, path: answers.path))
      } catch {
        guard !Task.isCancelled else { return nil }
        result = .failure(error)
      }
      return FrameAnswer(result: result, dropped: pump.takeDropped())
    }
  }
}

/// Reads frames as fast as they come and keeps the newest; stops when nobody holds it any more.
private final class FramePump<Frames: AsyncSequence & Sendable>: Sendable
where Frames.Element: Sendable {
  let newest: AsyncThrowingStream<Frames.Element, any Error>
  private let dropped = Counter()
  private let task: Task<Void, Never>

  init(_ frames: Frames) {
    let (stream, continuation) = AsyncThrowingStream.makeStream(
      of: Frames.Element.self, throwing: (any Error).self, bufferingPolicy: .bufferingNewest(1))
    newest = stream
    // Not self, which would never be let go.
    task = Task { [dropped] in
      do {
        for try await frame in frames {
          if case .dropped = continuation.yield(frame) { dropped.increment() }
        }
        continuation.finish()
      } catch {
        continuation.finish(throwing: error)
      }
    }
  }

  deinit { task.cancel() }

  /// How many frames were passed over since this was last asked.
  func takeDropped() -> Int { dropped.take() }
}

/// Counts from several threads.
///
/// Unchecked: the lock guards the only member. `Mutex` would need iOS 18.
private final class Counter: @unchecked Sendable {
  private let lock = NSLock()
  private var count = 0

  func increment() { lock.withLock { count += 1 } }

  func take() -> Int {
    lock.withLock {
      defer { count = 0 }
      return count
    }
  }
}
