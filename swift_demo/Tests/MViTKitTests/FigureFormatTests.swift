import MViTKit
import Testing

@Suite("Figures as text")
struct FigureFormatTests {
  @Test(
    "a share is shown in percent, and never as 0 or 100 when it is neither",
    arguments: [
      (0.0, "0.0 %"), (0.0009, "< 0.1 %"), (0.001, "0.1 %"), (0.973, "97.3 %"),
      (0.999, "99.9 %"), (0.9994, "> 99.9 %"), (1.0, "100.0 %"), (Double.nan, "–"),
    ])
  func percent(share: Double, shown: String) {
    #expect(FigureFormat.percent(share) == shown)
  }

  @Test(
    "a latency has three digits",
    arguments: [
      (0.003421, "3.42 ms"), (0.01234, "12.3 ms"), (0.1236, "124 ms"), (Double.infinity, "–"),
    ])
  func milliseconds(seconds: Double, shown: String) {
    #expect(FigureFormat.milliseconds(seconds) == shown)
  }

  @Test("what was not measured is a dash")
  func nothingMeasured() {
    #expect(FigureFormat.milliseconds(nil) == "–")
    #expect(FigureFormat.framesPerSecond(nil) == "–")
    #expect(FigureFormat.framesPerSecond(29.84) == "29.8 fps")
  }
}
