import MViTKit
import Testing

@testable import MViTDemoLogic

@Suite("Figures on the screen")
struct LatencyBoardTests {
  private func timing(_ seconds: Double) -> PredictionTiming {
    PredictionTiming(resizing: 0, prediction: seconds, path: .exact)
  }

  @Test("change twice a second, whatever the frame rate, and count every frame")
  func throttled() {
    var board = LatencyBoard()
    let shown = (0..<60).compactMap { frame in
      board.record(timing(frame < 30 ? 1 : 3), at: Double(frame) / 30)
    }
    #expect(shown.count == 4)
    #expect(shown.first?.median == 1)
    let all = board.figures(nil)
    #expect(all.median == 2)
    #expect(all.framesPerSecond.map { abs($0 - 30) < 1e-9 } == true)
  }

  @Test("a frame that failed is passed over, a failure that stays is shown")
  func failures() {
    var streak = FailureStreak()
    let four = (0..<4).map { _ in streak.note(failed: true) }
    #expect(four == [false, false, false, false])
    var shown = streak.note(failed: false)
    #expect(!shown)
    for _ in 0..<5 { shown = streak.note(failed: true) }
    #expect(shown)
    shown = streak.note(failed: false)
    #expect(!shown)
  }
}
