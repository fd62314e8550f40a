import MViTKit
import Testing

@Suite("Numbers and sentences of the app")
struct AppFormatTests {
  @Test(
    "a share is shown in percent, and never as 0 or 100 when it is neither",
    arguments: [
      (0.0, "0.0 %"), (0.0009, "< 0.1 %"), (0.001, "0.1 %"), (0.973, "97.3 %"),
      (0.999, "99.9 %"), (0.9994, "> 99.9 %"), (1.0, "100.0 %"), (Double.nan, "–"),
    ])
  func percent(share: Double, shown: String) {
    #expect(AppFormat.percent(share) == shown)
  }

  @Test(
    "a latency has three digits",
    arguments: [
      (0.003421, "3.42 ms"), (0.01234, "12.3 ms"), (0.1236, "124 ms"), (Double.infinity, "–"),
    ])
  func milliseconds(seconds: Double, shown: String) {
    #expect(AppFormat.milliseconds(seconds) == shown)
  }

  @Test("what was not measured is a dash")
  func nothingMeasured() {
    #expect(AppFormat.milliseconds(nil) == "–")
    #expect(AppFormat.framesPerSecond(nil) == "–")
    #expect(AppFormat.framesPerSecond(29.84) == "29.8 fps")
    #expect(AppFormat.spokenLatency(median: nil, p95: 0.1) == "No latency measured yet")
  }

  @Test("VoiceOver hears words, not symbols")
  func spoken() {
    let score = ClassScore(index: 3, label: "red three", score: 0.966)
    #expect(AppFormat.spoken(score) == "red three, 97 percent")
    #expect(
      AppFormat.spoken(label: "blue digit", share: 0.123) == "blue digit, 12 percent of the picture"
    )
    #expect(
      AppFormat.spokenLatency(median: 0.0034, p95: 0.0051)
        == "Prediction takes 3.4 milliseconds in the median, 5.1 at the 95th percentile")
  }
}
