import MViTKit
import Testing

@Suite("A camera's life")
struct CaptureLifecycleTests {
  typealias Event = CaptureLifecycle.Event

  private func running() -> CaptureLifecycle {
    var camera = CaptureLifecycle()
    _ = camera.handle(.wanted(true))
    _ = camera.handle(.started)
    return camera
  }

  @Test("begins when a screen wants it and ends with the screen, once each")
  func wanted() {
    var camera = CaptureLifecycle()
    #expect(camera.handle(.wanted(false)) == .none)
    #expect(camera.handle(.wanted(true)) == .start)
    #expect(camera.handle(.wanted(true)) == .none)
    #expect(camera.state == .starting && !camera.mayPredict)
    #expect(camera.handle(.started) == .none)
    #expect(camera.state == .running && camera.mayPredict)
    #expect(camera.handle(.wanted(false)) == .stop)
    #expect(camera.state == .off)
    // Late news of a session that was stopped.
    #expect(camera.handle(.started) == .none)
    #expect(camera.state == .off)
  }

  @Test("pauses in the background, where nothing is predicted, and comes back")
  func background() {
    var camera = running()
    #expect(camera.handle(.foreground(false)) == .stop)
    #expect(camera.state == .off && !camera.mayPredict)
    #expect(camera.handle(.interrupted(.background)) == .none)
    #expect(camera.state == .off)
    #expect(camera.handle(.foreground(true)) == .start)
    #expect(camera.handle(.started) == .none)
    #expect(camera.mayPredict)
  }

  @Test("does not begin in the background")
  func wantedInBackground() {
    var camera = CaptureLifecycle()
    #expect(camera.handle(.foreground(false)) == .none)
    #expect(camera.handle(.wanted(true)) == .none)
    #expect(camera.handle(.foreground(true)) == .start)
  }

  @Test("is interrupted by the system and goes on afterwards")
  func interruption() {
    var camera = running()
    #expect(camera.handle(.interrupted(.multitasking)) == .none)
    #expect(camera.state == .interrupted(.multitasking) && !camera.mayPredict)
    #expect(camera.handle(.interruptionEnded) == .start)
    #expect(camera.handle(.started) == .none)
    #expect(camera.mayPredict)
    #expect(camera.handle(.interruptionEnded) == .none)
    #expect(camera.state == .running)
  }

  @Test("that nobody wants while it is interrupted does not come back")
  func leftWhileInterrupted() {
    var camera = running()
    _ = camera.handle(.interrupted(.inUseElsewhere))
    #expect(camera.handle(.wanted(false)) == .stop)
    #expect(camera.handle(.interruptionEnded) == .none)
    #expect(camera.state == .off)
  }

  @Test("is tried again after an error, but not for ever; a reset of the services is none")
  func errors() {
    var camera = running()
    for _ in 0..<5 {
      #expect(camera.handle(.failed(isReset: true)) == .start)
      #expect(camera.handle(.started) == .none)
    }
    camera = running()
    for _ in 0..<2 {
      #expect(camera.handle(.failed(isReset: false)) == .start)
      #expect(camera.handle(.started) == .none)
    }
    #expect(camera.handle(.failed(isReset: false)) == .stop)
    #expect(camera.state == .failed)
    #expect(camera.handle(.failed(isReset: false)) == .none)
    // The user asks again.
    #expect(camera.handle(.wanted(true)) == .start)
    #expect(camera.handle(.failed(isReset: false)) == .start)
  }

  @Test("without a camera says so, until it is wanted again")
  func unavailable() {
    var camera = CaptureLifecycle()
    _ = camera.handle(.wanted(true))
    #expect(camera.handle(.unavailable) == .none)
    #expect(camera.state == .unavailable && !camera.mayPredict)
    #expect(camera.handle(.interrupted(.other)) == .none)
    #expect(camera.handle(.wanted(true)) == .start)
    #expect(camera.handle(.wanted(false)) == .stop)
    #expect(camera.handle(.unavailable) == .none)
    #expect(camera.state == .off)
  }
}
