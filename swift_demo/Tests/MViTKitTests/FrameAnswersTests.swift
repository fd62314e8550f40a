import MViTKit
import Testing

/// Which frame an answer of ``FakePredictor`` is about.
private func frame(_ answer: FrameAnswer?) throws -> Int? {
  try answer?.result.get().answer.scores.first?.index
}

@Suite("Answers to a stream of frames", .timeLimit(.minutes(1)))
struct FrameAnswersTests {
  @Test("are about the newest frame, and say how many were passed over")
  func newest() async throws {
    let (model, frames) = (try FakePredictor(), FrameSource())
    let task = Task { () -> [Int?] in
      var found: [Int?] = []
      for try await answer in model.answers(to: frames, pacing: .unlimited) {
        found += [try frame(answer), answer.dropped]
      }
      return found
    }
    frames.send(1)
    _ = await model.begun(1)
    for number in 2...5 { frames.send(number) }
    // Frame 5 was taken when a sixth is asked for.
    await frames.asked(6)
    await model.release()
    #expect(await model.begun(2) == [1, 5])
    await model.open()
    frames.finish()
    // 2, 3 and 4 were passed over while 1 was worked on.
    #expect(try await task.value == [1, 3, 5, 0])
  }

  @Test("leave frames out that come while the reader is busy with the answer before")
  func slowReader() async throws {
    let (model, frames) = (try FakePredictor(isGated: false), FrameSource())
    var answers = model.answers(to: frames, pacing: .unlimited).makeAsyncIterator()
    frames.send(1)
    #expect(try await frame(answers.next()) == 1)
    for number in 2...9 { frames.send(number) }
    await frames.asked(10)
    #expect(try await frame(answers.next()) == 9)
    frames.finish()
    #expect(try await answers.next() == nil)
  }

  @Test("go on after a frame that failed")
  func failure() async throws {
    let (model, frames) = (try FakePredictor(failing: [1], isGated: false), FrameSource())
    var answers = model.answers(to: frames, pacing: .unlimited).makeAsyncIterator()
    frames.send(1)
    let failed = try await answers.next()
    #expect(throws: FakePredictor.Failure.self) { try failed?.result.get() }
    frames.send(2)
    #expect(try await frame(answers.next()) == 2)
  }

  @Test("end with the frames, and fail with them")
  func end() async throws {
    struct Broken: Error {}
    let (model, frames) = (try FakePredictor(isGated: false), FrameSource())
    frames.send(1)
    frames.finish(throwing: Broken())
    var answers = model.answers(to: frames, pacing: .unlimited).makeAsyncIterator()
    #expect(try await frame(answers.next()) == 1)
    await #expect(throws: Broken.self) { try await answers.next() }
  }

  @Test("stop reading the frames when nobody wants them any more")
  func dropped() async throws {
    let (model, frames) = (try FakePredictor(isGated: false), FrameSource())
    frames.send(1)
    func readOne() async throws -> Int? {
      for try await answer in model.answers(to: frames, pacing: .unlimited) {
        return try frame(answer)
      }
      return nil
    }
    #expect(try await readOne() == 1)
    await frames.ended()
  }

  @Test("keep the interval that the pacing asks for")
  func pacing() async throws {
    let (model, frames) = (try FakePredictor(isGated: false), FrameSource())
    let pacing = FramePacing(serious: 20)
    var answers = model.answers(to: frames, pacing: pacing, thermalLevel: { .serious })
      .makeAsyncIterator()
    let clock = ContinuousClock()
    frames.send(1)
    _ = try await answers.next()
    let start = clock.now
    for number in 2...3 {
      frames.send(number)
      _ = try await answers.next()
    }
    // Two intervals of 50 ms, the first of which began with the first answer.
    #expect(clock.now - start > .milliseconds(80))
  }
}

@Suite("The rate of frames by temperature")
struct FramePacingTests {
  @Test("falls as the device gets hotter, and is unlimited when it is cool")
  func levels() {
    let intervals = ThermalLevel.allCases.map { FramePacing().interval(at: $0) }
    #expect(intervals[0] == .zero)
    #expect(intervals == intervals.sorted())
    #expect(intervals[2] == .milliseconds(100) && intervals[3] == .milliseconds(500))
    let unlimited = ThermalLevel.allCases.map { FramePacing.unlimited.interval(at: $0) }
    #expect(unlimited.allSatisfy { $0 == .zero })
  }

  @Test("is never so low that the app seems to hang")
  func floor() {
    #expect(FramePacing(critical: 0).interval(at: .critical) == .seconds(10))
  }
}
